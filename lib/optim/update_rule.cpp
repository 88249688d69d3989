// SPDX-License-Identifier: Apache-2.0
// AdamW, Adam and SGD on flat slices.
#include "tessera/optim/update_rule.hpp"

#include <cmath>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/kernels/adamw.hpp"
#include "tessera/kernels/sgd.hpp"

#include "optim/names.hpp"

namespace tessera::optim {
namespace {

void check_slice(const UpdateRule& rule, const Slice& slice) {
  TESSERA_CHECK(slice.states.size() == rule.state_names().size(), Code::invalid_argument,
                fmt::format("{} needs {} state arrays, got {}", rule.name(),
                            rule.state_names().size(), slice.states.size()));
  TESSERA_CHECK(slice.step >= 1, Code::invalid_argument,
                fmt::format("{}: steps count from 1, got {}", rule.name(), slice.step));
}

/// Both Adams: they differ in where the weight decay goes.
class AdamRule : public UpdateRule {
 public:
  AdamRule(std::string name, bool decoupled, const UpdateOptions& options)
      : name_(std::move(name)), decoupled_(decoupled), options_(options) {}

  const std::string& name() const override { return name_; }
  const std::vector<std::string>& state_names() const override { return states_; }
  bool takes_scheduled_momentum() const override { return true; }

  void update(const Stream& stream, const Slice& slice) const override {
    check_slice(*this, slice);
    const auto usual = numbers({slice.lr, slice.momentum, slice.step});
    kernels::adamw(stream, {.parameter = slice.parameter,
                            .low = slice.low,
                            .rounded = slice.rounded,
                            .exp_avg = slice.states[0],
                            .exp_avg_sq = slice.states[1],
                            .gradient = slice.gradient,
                            .gradient_type = slice.gradient_type,
                            .gradient_scale = slice.gradient_scale,
                            .lr = usual.lr,
                            .beta1 = usual.beta1,
                            .beta2 = options_.beta2,
                            .epsilon = options_.epsilon,
                            .weight_decay = slice.weight_decay,
                            .correction1 = usual.correction1,
                            .correction2 = usual.correction2,
                            .decoupled = decoupled_,
                            .count = slice.count,
                            .decision = slice.decision,
                            .after_skip = numbers(slice.after_skip)});
  }

 private:
  kernels::AdamW::Numbers numbers(const StepNumbers& of) const {
    const double beta1 = of.momentum.value_or(options_.beta1);
    return {of.lr, beta1, correction(beta1, of.step), correction(options_.beta2, of.step)};
  }
  double correction(double beta, std::int64_t step) const {
    return options_.bias_correction ? 1 - std::pow(beta, static_cast<double>(step)) : 1.0;
  }

  std::string name_;
  bool decoupled_;
  UpdateOptions options_;
  std::vector<std::string> states_{"exp_avg", "exp_avg_sq"};
};

class SgdRule : public UpdateRule {
 public:
  explicit SgdRule(const UpdateOptions& options) : options_(options) {
    if (options.momentum != 0) states_.emplace_back("momentum_buffer");
  }

  const std::string& name() const override { return name_; }
  const std::vector<std::string>& state_names() const override { return states_; }
  bool takes_scheduled_momentum() const override { return false; }

  void update(const Stream& stream, const Slice& slice) const override {
    check_slice(*this, slice);
    kernels::sgd(stream, {.parameter = slice.parameter,
                          .low = slice.low,
                          .rounded = slice.rounded,
                          .momentum_buffer = states_.empty() ? nullptr : slice.states[0],
                          .gradient = slice.gradient,
                          .gradient_type = slice.gradient_type,
                          .gradient_scale = slice.gradient_scale,
                          .lr = slice.lr,
                          .momentum = options_.momentum,
                          .dampening = options_.dampening,
                          .weight_decay = slice.weight_decay,
                          .nesterov = options_.nesterov,
                          .first_step = slice.step == 1,
                          .count = slice.count,
                          .decision = slice.decision,
                          .after_skip = {slice.after_skip.lr, slice.after_skip.step == 1}});
  }

 private:
  std::string name_ = "SGD";
  UpdateOptions options_;
  std::vector<std::string> states_;
};

/// `low` belongs to the range, `high` only if it is infinite.
struct Range {
  double low, high;
};
void check_option(const char* option, double value, Range range) {
  const bool inside = std::isfinite(value) && value >= range.low && value < range.high;
  TESSERA_CHECK(
      inside, Code::invalid_config,
      fmt::format("optimizer {} is {}, but has to be {}", option, value,
                  std::isinf(range.high) ? fmt::format("a finite number of at least {}", range.low)
                                         : fmt::format("in [{}, {})", range.low, range.high)));
}

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::unique_ptr<UpdateRule> make_adam(std::string name, bool decoupled,
                                      const UpdateOptions& options) {
  check_option("betas[0]", options.beta1, {0, 1});
  check_option("betas[1]", options.beta2, {0, 1});
  check_option("eps", options.epsilon, {0, kInfinity});
  return std::make_unique<AdamRule>(std::move(name), decoupled, options);
}

std::unique_ptr<UpdateRule> make_sgd(const UpdateOptions& options) {
  check_option("momentum", options.momentum, {0, 1});
  check_option("dampening", options.dampening, {0, kInfinity});
  TESSERA_CHECK(!options.nesterov || (options.momentum > 0 && options.dampening == 0),
                Code::invalid_config,
                fmt::format("optimizer nesterov needs momentum above 0 and dampening 0, got {} and "
                            "{}",
                            options.momentum, options.dampening));
  return std::make_unique<SgdRule>(options);
}

}  // namespace

std::unique_ptr<UpdateRule> make_update_rule(const UpdateOptions& options) {
  check_option("lr", options.lr, {0, kInfinity});
  check_option("weight_decay", options.weight_decay, {0, kInfinity});
  const std::string type = lower_case(options.type);
  // As in DeepSpeed, AdamW is always decoupled, and Adam unless it is told otherwise.
  if (type == "adamw") return make_adam("AdamW", true, options);
  if (type == "adam") return make_adam("Adam", options.adam_w_mode, options);
  if (type == "sgd") return make_sgd(options);
  fail(Code::invalid_config,
       fmt::format("optimizer type \"{}\" is not known; there are AdamW, Adam and SGD",
                   options.type));
}

}  // namespace tessera::optim
