// SPDX-License-Identifier: Apache-2.0
// Update rules against fp64 loops of torch's formulas, their states and their errors.
#include "tessera/optim/update_rule.hpp"

#include <cmath>

#include "tessera/base/error.hpp"
#include "tessera/kernels/split_master.hpp"

#include "support/kernel_testing.hpp"

namespace tessera::optim {
namespace {

using testing::Doubles;

constexpr std::size_t kCount = 65;

/// A rule at work on fp32 parameters.
struct Fixture {
  explicit Fixture(const UpdateOptions& options) : rule(make_update_rule(options)) {
    const auto values = testing::random_doubles(kCount, 1);
    parameter.assign(values.begin(), values.end());
    for (const auto& name : rule->state_names()) {
      states.emplace_back(kCount);
      names.push_back(name);
    }
    for (auto& state : states) pointers.push_back(state.data());
  }
  Slice slice(const std::vector<float>& gradient, const UpdateOptions& options, int step) {
    return {.parameter = parameter.data(),
            .gradient = gradient.data(),
            .gradient_type = DType::fp32,
            .states = pointers,
            .count = static_cast<std::int64_t>(kCount),
            .lr = options.lr,
            .weight_decay = options.weight_decay,
            .step = step};
  }

  std::unique_ptr<UpdateRule> rule;
  std::vector<float> parameter;
  std::vector<std::vector<float>> states;
  std::vector<float*> pointers;
  std::vector<std::string> names;
};

std::vector<float> gradient_of(int step) {
  const auto values = testing::random_doubles(kCount, static_cast<std::uint64_t>(step) + 10);
  return {values.begin(), values.end()};
}

/// One element, as torch.optim.AdamW (decoupled) or Adam updates it.
struct AdamReference {
  double w, m = 0, v = 0;
  void step(double g, const UpdateOptions& o, bool decoupled, double beta1, int step) {
    if (decoupled)
      w -= o.lr * o.weight_decay * w;
    else
      g += o.weight_decay * w;
    m = beta1 * m + (1 - beta1) * g;
    v = o.beta2 * v + (1 - o.beta2) * g * g;
    const double c1 = o.bias_correction ? 1 - std::pow(beta1, step) : 1;
    const double c2 = o.bias_correction ? 1 - std::pow(o.beta2, step) : 1;
    w -= o.lr / c1 * m / (std::sqrt(v / c2) + o.epsilon);
  }
};

void expect_adam(const UpdateOptions& options, bool decoupled,
                 std::optional<double> momentum = {}) {
  Fixture f(options);
  std::vector<AdamReference> reference;
  for (const float w : f.parameter) reference.push_back({.w = static_cast<double>(w)});
  for (int step = 1; step <= 20; ++step) {
    const auto gradient = gradient_of(step);
    auto slice = f.slice(gradient, options, step);
    slice.momentum = momentum;
    f.rule->update(Stream(), slice);
    for (std::size_t i = 0; i < kCount; ++i)
      reference[i].step(static_cast<double>(gradient[i]), options, decoupled,
                        momentum.value_or(options.beta1), step);
  }
  for (std::size_t i = 0; i < kCount; ++i)
    EXPECT_NEAR(static_cast<double>(f.parameter[i]), reference[i].w, 2e-6) << options.type;
}

TEST(UpdateRule, AdamFollowsItsMode) {
  UpdateOptions options{.lr = 1e-2, .weight_decay = 0.1};
  for (const char* type : {"AdamW", "adamw", "Adam", "ADAM"}) {
    options.type = type;
    expect_adam(options, true);
  }
  options.adam_w_mode = false;
  options.type = "Adam";
  expect_adam(options, false);
  options.type = "AdamW";
  expect_adam(options, true);
  options.bias_correction = false;
  expect_adam(options, true);
}

TEST(UpdateRule, ScheduleOverridesAdamsMomentum) {
  expect_adam({.lr = 1e-2}, true, 0.5);
  EXPECT_TRUE(make_update_rule({})->takes_scheduled_momentum());
  EXPECT_FALSE(make_update_rule({.type = "SGD"})->takes_scheduled_momentum());
}

TEST(UpdateRule, SgdWithAndWithoutMomentum) {
  for (const double momentum : {0.0, 0.9}) {
    const UpdateOptions options{
        .type = "SGD", .lr = 0.1, .weight_decay = 0.01, .momentum = momentum};
    Fixture f(options);
    Doubles w(f.parameter.begin(), f.parameter.end()), buffer(kCount);
    for (int step = 1; step <= 5; ++step) {
      const auto gradient = gradient_of(step);
      f.rule->update(Stream(), f.slice(gradient, options, step));
      for (std::size_t i = 0; i < kCount; ++i) {
        const double g = static_cast<double>(gradient[i]) + 0.01 * w[i];
        buffer[i] = step == 1 ? g : momentum * buffer[i] + g;
        w[i] -= 0.1 * buffer[i];
      }
    }
    for (std::size_t i = 0; i < kCount; ++i)
      EXPECT_NEAR(static_cast<double>(f.parameter[i]), w[i], 1e-5);
  }
}

TEST(UpdateRule, StateNamesAreTorchs) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(make_update_rule({})->state_names(), (Names{"exp_avg", "exp_avg_sq"}));
  EXPECT_EQ(make_update_rule({.type = "sgd"})->state_names(), Names{});
  EXPECT_EQ(make_update_rule({.type = "sgd", .momentum = 0.9})->state_names(),
            Names{"momentum_buffer"});
}

TEST(UpdateRule, SplitMasterHasTheBitsOfPlainFp32) {
  const UpdateOptions options{.lr = 1e-2, .weight_decay = 0.1};
  Fixture plain(options), pair(options);
  std::vector<bf16> high(kCount);
  std::vector<std::uint16_t> low(kCount);
  kernels::split(Stream(), pair.parameter.data(), high.data(), low.data(), kCount);
  for (int step = 1; step <= 3; ++step) {
    const auto gradient = gradient_of(step);
    plain.rule->update(Stream(), plain.slice(gradient, options, step));
    auto slice = pair.slice(gradient, options, step);
    slice.parameter = high.data();
    slice.low = low.data();
    pair.rule->update(Stream(), slice);
  }
  kernels::join(Stream(), high.data(), low.data(), pair.parameter.data(), kCount);
  EXPECT_EQ(pair.parameter, plain.parameter);
}

void expect_refused(const UpdateOptions& options, const std::string& part) {
  try {
    make_update_rule(options);
    FAIL() << "accepted; expected a message with " << part;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::invalid_config);
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(UpdateRuleErrors, OptionsOutOfRangeAreNamed) {
  expect_refused({.type = "Adma"}, "\"Adma\" is not known; there are AdamW, Adam and SGD");
  expect_refused({.lr = -1}, "lr is -1");
  expect_refused({.lr = std::nan("")}, "lr is nan");
  expect_refused({.weight_decay = -0.5}, "weight_decay is -0.5");
  expect_refused({.beta1 = 1}, "betas[0] is 1, but has to be in [0, 1)");
  expect_refused({.beta2 = -0.1}, "betas[1] is -0.1");
  expect_refused({.epsilon = -1e-8}, "eps is -1e-08");
  expect_refused({.type = "SGD", .momentum = 1}, "momentum is 1");
  expect_refused({.type = "SGD", .nesterov = true}, "nesterov needs momentum");
}

TEST(UpdateRuleErrors, WrongSlicesAreRefused) {
  const UpdateOptions options;
  Fixture f(options);
  const auto gradient = gradient_of(1);
  auto slice = f.slice(gradient, options, 0);
  EXPECT_THROW(f.rule->update(Stream(), slice), Error);
  slice.step = 1;
  slice.states = {};
  EXPECT_THROW(f.rule->update(Stream(), slice), Error);
}

}  // namespace
}  // namespace tessera::optim
