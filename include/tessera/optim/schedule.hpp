// SPDX-License-Identifier: Apache-2.0
// Learning-rate schedules with DeepSpeed's names, parameters and values.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace tessera::optim {

using ScheduleParameter = std::variant<bool, std::int64_t, double, std::string>;

/// What a configuration's `scheduler` section says. An integer is accepted where a real number is
/// meant, and a whole real number (5e3) where an integer is.
struct ScheduleOptions {
  std::string type = "constant";
  std::map<std::string, ScheduleParameter> parameters;
};

struct ScheduleValue {
  double lr;
  std::optional<double> momentum;  // set by OneCycle alone
};

/// A pure function of the step number, so there is no state to save.
class Schedule {
 public:
  virtual ~Schedule() = default;
  /// What update k = 0, 1, … uses: for k = 0 what DeepSpeed's schedule sets at construction, then
  /// its value after k schedule steps. Updates that are skipped (overflow) do not advance k.
  virtual ScheduleValue at(std::int64_t k) const = 0;
};

/// Types and their parameters (defaults in brackets; "lr" is the optimizer's own):
/// - constant: none; always lr.
/// - WarmupLR: warmup_min_lr [0], warmup_max_lr [lr], warmup_num_steps [1000], warmup_type [log;
///   or linear].
/// - WarmupDecayLR: the same and total_num_steps (required). DeepSpeed's own default for
///   warmup_max_lr is 0.001 here, whatever the optimizer's lr; ours is lr for all warm-ups.
/// - WarmupCosineLR: total_num_steps (required), warmup_min_ratio [0], warmup_num_steps [1000],
///   cos_min_ratio [0.0001], warmup_type [log]. The first update has lr 0, as in DeepSpeed.
/// - OneCycle: cycle_min_lr, cycle_max_lr (required), decay_lr_rate [0], cycle_first_step_size
///   [2000], cycle_second_step_size [the first], cycle_first_stair_count [0],
///   cycle_second_stair_count [the first], decay_step_size [0], cycle_momentum [true],
///   cycle_min_mom [0.8], cycle_max_mom [0.9], decay_mom_rate [0]. Two differences from DeepSpeed:
///   its momentum grows beyond 1 in the decay phase, ours stops at kLargestMomentum; and it sets
///   beta2 to 0.99, ours leaves beta2 as configured.
/// - LRRangeTest: lr_range_test_min_lr [1e-3], lr_range_test_step_size [2000],
///   lr_range_test_step_rate [1], lr_range_test_staircase [false].
/// Type names are matched in any case of letters. Errors: invalid_config naming the type or
/// parameter, its value and what is possible.
std::unique_ptr<Schedule> make_schedule(const ScheduleOptions& options, double lr);

inline constexpr double kLargestMomentum = 0.9999;

/// Names of the parameters of a schedule type; empty for an unknown type.
std::vector<std::string> schedule_parameter_names(const std::string& type);
/// The known types, for messages.
const std::vector<std::string>& schedule_types();

}  // namespace tessera::optim
