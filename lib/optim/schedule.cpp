// SPDX-License-Identifier: Apache-2.0
// Learning-rate schedules. In the formulas t = k - 1 is DeepSpeed's last_batch_iteration: -1 when
// the schedule has not been stepped yet.
#include "tessera/optim/schedule.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "tessera/base/error.hpp"

#include "optim/names.hpp"
#include "optim/schedule_parameters.hpp"

namespace tessera::optim {
namespace {

class Constant : public Schedule {
 public:
  explicit Constant(double lr) : lr_(lr) {}
  ScheduleValue at(std::int64_t) const override { return {lr_, std::nullopt}; }

 private:
  double lr_;
};

/// The rise from 0 to 1 that three schedules share.
class Warmup {
 public:
  explicit Warmup(const ScheduleReader& reader)
      : steps_(std::max<std::int64_t>(2, reader.count("warmup_num_steps", 1, 1000))) {
    const std::string type = reader.text("warmup_type", "log");
    if (type != "log" && type != "linear") reader.refuse("warmup_type", "\"log\" or \"linear\"");
    linear_ = type == "linear";
  }

  std::int64_t steps() const { return steps_; }
  /// For 0 <= t < steps().
  double at(std::int64_t t) const {
    const auto n = static_cast<double>(steps_), x = static_cast<double>(t);
    return linear_ ? x / n : std::log(x + 1) / std::log(n);
  }

 private:
  std::int64_t steps_;
  bool linear_;
};

/// WarmupLR, and WarmupDecayLR when there is a total number of steps.
class WarmupLr : public Schedule {
 public:
  WarmupLr(const ScheduleReader& reader, double lr, bool decays)
      : warmup_(reader),
        low_(reader.number("warmup_min_lr", 0.0)),
        high_(reader.number("warmup_max_lr", lr)) {
    if (decays) total_ = reader.count("total_num_steps", 1, std::nullopt);
  }

  ScheduleValue at(std::int64_t k) const override {
    if (k == 0) return {low_, std::nullopt};
    return {low_ + (high_ - low_) * factor(k - 1), std::nullopt};
  }

 private:
  double factor(std::int64_t t) const {
    if (t < warmup_.steps()) return warmup_.at(t);
    if (!total_) return 1;
    const auto left = static_cast<double>(*total_ - t);
    const auto span = std::max<std::int64_t>(1, *total_ - warmup_.steps());
    return std::max(0.0, left / static_cast<double>(span));
  }

  Warmup warmup_;
  double low_, high_;
  std::optional<std::int64_t> total_;
};

class WarmupCosine : public Schedule {
 public:
  WarmupCosine(const ScheduleReader& reader, double lr)
      : warmup_(reader),
        lr_(lr),
        total_(reader.count("total_num_steps", 1, std::nullopt)),
        warmup_floor_(reader.number("warmup_min_ratio", 0.0)),
        cosine_floor_(reader.number("cos_min_ratio", 0.0001)) {}

  ScheduleValue at(std::int64_t k) const override {
    return {k == 0 ? 0.0 : lr_ * factor(k - 1), std::nullopt};
  }

 private:
  double factor(std::int64_t t) const {
    const std::int64_t n = warmup_.steps();
    if (t < n) return warmup_floor_ + (1 - warmup_floor_) * warmup_.at(t);
    const auto span = static_cast<double>(std::max<std::int64_t>(1, total_ - n));
    const double progress = std::min(1.0, static_cast<double>(t - n + 1) / span);
    const double wave = (1 + std::cos(std::acos(-1.0) * progress)) / 2;
    return std::max(0.0, cosine_floor_ + (1 - cosine_floor_) * wave);
  }

  Warmup warmup_;
  double lr_;
  std::int64_t total_;
  double warmup_floor_, cosine_floor_;
};

class OneCycle : public Schedule {
 public:
  explicit OneCycle(const ScheduleReader& reader)
      : low_(reader.number("cycle_min_lr", std::nullopt)),
        high_(reader.number("cycle_max_lr", std::nullopt)),
        decay_rate_(reader.number("decay_lr_rate", 0.0)),
        first_(reader.count("cycle_first_step_size", 1, 2000)),
        second_(reader.count("cycle_second_step_size", 1, first_)),
        first_stairs_(reader.count("cycle_first_stair_count", 0, 0)),
        second_stairs_(reader.count("cycle_second_stair_count", 0, first_stairs_)),
        decay_steps_(reader.count("decay_step_size", 0, 0)),
        cycles_momentum_(reader.flag("cycle_momentum", true)),
        low_momentum_(momentum(reader, "cycle_min_mom", 0.8)),
        high_momentum_(momentum(reader, "cycle_max_mom", 0.9)),
        momentum_decay_rate_(reader.number("decay_mom_rate", 0.0)) {}

  ScheduleValue at(std::int64_t k) const override {
    // At construction DeepSpeed sets both to their lowest values, although they run opposite ways.
    if (k == 0) return value(low_, low_momentum_);
    const std::int64_t t = k - 1;
    if (t >= first_ + second_) return decayed(t - (first_ + second_) + 1);
    const double height = cycle_height(t + 1);
    return value(low_ + (high_ - low_) * height,
                 high_momentum_ - (high_momentum_ - low_momentum_) * height);
  }

 private:
  static double momentum(const ScheduleReader& reader, const char* name, double fallback) {
    const double value = reader.number(name, fallback);
    if (value >= 1) reader.refuse(name, "in [0, 1)");
    return value;
  }

  ScheduleValue value(double lr, double momentum) const {
    if (!cycles_momentum_) return {lr, std::nullopt};
    return {lr, momentum};
  }

  /// From 0 up to 1 at `first_` and down to 0 at the end of the cycle.
  double cycle_height(std::int64_t u) const {
    const std::int64_t position = u % (first_ + second_);
    const bool rising = position <= first_;
    const std::int64_t way = rising ? position : first_ + second_ - position;
    const std::int64_t length = rising ? first_ : second_;
    const std::int64_t stairs = rising ? first_stairs_ : second_stairs_;
    if (stairs > 0) {
      const double stair =
          static_cast<double>(way) * static_cast<double>(stairs) / static_cast<double>(length);
      return std::floor(stair) / static_cast<double>(stairs);
    }
    return static_cast<double>(way) / static_cast<double>(length);
  }

  ScheduleValue decayed(std::int64_t steps) const {
    if (decay_steps_ == 0) return value(low_, high_momentum_);
    const double interval = static_cast<double>(steps) / static_cast<double>(decay_steps_);
    const double grown = high_momentum_ * (1 + momentum_decay_rate_ * interval);
    const double limit = std::max(high_momentum_, kLargestMomentum);
    return value(low_ / (1 + decay_rate_ * interval), std::min(grown, limit));
  }

  double low_, high_, decay_rate_;
  std::int64_t first_, second_, first_stairs_, second_stairs_, decay_steps_;
  bool cycles_momentum_;
  double low_momentum_, high_momentum_, momentum_decay_rate_;
};

class LrRangeTest : public Schedule {
 public:
  explicit LrRangeTest(const ScheduleReader& reader)
      : low_(reader.number("lr_range_test_min_lr", 1e-3)),
        step_size_(reader.count("lr_range_test_step_size", 1, 2000)),
        rate_(reader.number("lr_range_test_step_rate", 1.0)),
        staircase_(reader.flag("lr_range_test_staircase", false)) {}

  ScheduleValue at(std::int64_t k) const override {
    const double interval = static_cast<double>(k) / static_cast<double>(step_size_);
    return {low_ * (1 + rate_ * (staircase_ ? std::floor(interval) : interval)), std::nullopt};
  }

 private:
  double low_;
  std::int64_t step_size_;
  double rate_;
  bool staircase_;
};

using Names = std::vector<std::string>;

/// A type's name as it is written, and its parameters.
const std::vector<std::pair<std::string, Names>>& registry() {
  static const std::vector<std::pair<std::string, Names>> types{
      {"constant", {}},
      {"WarmupLR", {"warmup_min_lr", "warmup_max_lr", "warmup_num_steps", "warmup_type"}},
      {"WarmupDecayLR",
       {"total_num_steps", "warmup_min_lr", "warmup_max_lr", "warmup_num_steps", "warmup_type"}},
      {"WarmupCosineLR",
       {"total_num_steps", "warmup_min_ratio", "warmup_num_steps", "cos_min_ratio", "warmup_type"}},
      {"OneCycle",
       {"cycle_min_lr", "cycle_max_lr", "decay_lr_rate", "cycle_first_step_size",
        "cycle_second_step_size", "cycle_first_stair_count", "cycle_second_stair_count",
        "decay_step_size", "cycle_momentum", "cycle_min_mom", "cycle_max_mom", "decay_mom_rate"}},
      {"LRRangeTest",
       {"lr_range_test_min_lr", "lr_range_test_step_size", "lr_range_test_step_rate",
        "lr_range_test_staircase"}},
  };
  return types;
}

/// The type as it is written in the registry, or "" if there is none.
std::string canonical(const std::string& type) {
  for (const auto& [name, parameters] : registry())
    if (lower_case(name) == lower_case(type)) return name;
  return "";
}

}  // namespace

const std::vector<std::string>& schedule_types() {
  static const auto names = [] {
    Names result;
    for (const auto& [name, parameters] : registry()) result.push_back(name);
    return result;
  }();
  return names;
}

std::vector<std::string> schedule_parameter_names(const std::string& type) {
  for (const auto& [name, parameters] : registry())
    if (name == canonical(type)) return parameters;
  return {};
}

std::unique_ptr<Schedule> make_schedule(const ScheduleOptions& options, double lr) {
  const std::string type = canonical(options.type);
  TESSERA_CHECK(!type.empty(), Code::invalid_config,
                fmt::format("scheduler type \"{}\" is not known; there are {}", options.type,
                            fmt::join(schedule_types(), ", ")));
  const ScheduleReader reader(options, type);
  if (type == "WarmupLR") return std::make_unique<WarmupLr>(reader, lr, false);
  if (type == "WarmupDecayLR") return std::make_unique<WarmupLr>(reader, lr, true);
  if (type == "WarmupCosineLR") return std::make_unique<WarmupCosine>(reader, lr);
  if (type == "OneCycle") return std::make_unique<OneCycle>(reader);
  if (type == "LRRangeTest") return std::make_unique<LrRangeTest>(reader);
  return std::make_unique<Constant>(lr);
}

}  // namespace tessera::optim
