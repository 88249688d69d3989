// SPDX-License-Identifier: Apache-2.0
// Static and dynamic loss scaling: when the scale changes, and that gradients are divided by the
// scale that multiplied them.
#include "tessera/optim/loss_scaler.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"
#include "tessera/base/random.hpp"

namespace tessera::optim {
namespace {

/// The scale after each step of a pattern: 'o' overflow, '.' clean.
std::vector<double> scales(LossScaler& scaler, const std::string& pattern) {
  std::vector<double> result;
  for (const char step : pattern) {
    scaler.begin_step();
    scaler.finish_step(step == 'o');
    result.push_back(scaler.scale());
  }
  return result;
}

using Scales = std::vector<double>;

TEST(LossScaler, StaticNeverChanges) {
  LossScaler scaler({.static_scale = 128});
  EXPECT_FALSE(scaler.is_dynamic());
  EXPECT_EQ(scales(scaler, "..oo.o"), Scales(6, 128));
}

TEST(LossScaler, StartsAtTwoToTheSixteenth) {
  EXPECT_EQ(LossScaler({}).scale(), 65536);
}

TEST(LossScaler, HalvesWhenTheHysteresisIsUsedUp) {
  LossScaler scaler({.initial_scale_power = 4, .hysteresis = 3});
  EXPECT_EQ(scales(scaler, "ooooo"), (Scales{16, 16, 8, 4, 2}));
}

TEST(LossScaler, CleanStepRefillsOnlyWhenConsecutive) {
  LossScaler plain({.initial_scale_power = 4, .hysteresis = 2});
  EXPECT_EQ(scales(plain, "o.o.o"), (Scales{16, 16, 8, 8, 4}));
  LossScaler consecutive(
      {.initial_scale_power = 4, .hysteresis = 2, .consecutive_hysteresis = true});
  EXPECT_EQ(scales(consecutive, "o.o.oo"), (Scales{16, 16, 16, 16, 16, 8}));
}

TEST(LossScaler, DoublesAfterAWindowOfCleanSteps) {
  LossScaler scaler({.initial_scale_power = 2, .window = 3, .hysteresis = 1});
  // Counted from the step after the last overflow, so the first growth needs one step more: step i
  // grows the scale when i - last_overflow - 1 is a multiple of the window.
  EXPECT_EQ(scales(scaler, "......."), (Scales{4, 4, 4, 8, 8, 8, 16}));
  EXPECT_EQ(scales(scaler, "o...."), (Scales{8, 8, 8, 8, 16}));
}

TEST(LossScaler, WindowRefillsTheHysteresis) {
  LossScaler scaler({.initial_scale_power = 4, .window = 2, .hysteresis = 2});
  EXPECT_EQ(scales(scaler, "o...oo"), (Scales{16, 16, 16, 32, 32, 16}));
}

TEST(LossScaler, StopsAtTheMinimum) {
  LossScaler scaler({.initial_scale_power = 1, .hysteresis = 1, .minimum = 0.75});
  EXPECT_EQ(scales(scaler, "oo"), (Scales{1, 0.75}));
  EXPECT_THROW(scaler.finish_step(true), Error);
}

TEST(LossScaler, GradientsAreDividedByTheScaleThatMultipliedThem) {
  LossScaler scaler({.initial_scale_power = 2, .window = 1, .hysteresis = 1});
  scaler.begin_step();
  scaler.finish_step(false);
  const double used = scaler.begin_step();
  scaler.finish_step(false);
  EXPECT_EQ(scaler.scale(), 2 * used);       // it grew …
  EXPECT_EQ(scaler.backward_scale(), used);  // … but not for the gradients at hand
}

TEST(LossScaler, ResumesWhereItWas) {
  const LossScalerOptions options{.initial_scale_power = 4, .window = 3, .hysteresis = 2};
  LossScaler whole(options), first(options), second(options);
  const std::string pattern = "..o..o.....o...oo....";
  const auto expected = scales(whole, pattern);
  const auto before = scales(first, pattern.substr(0, 8));
  second.restore(first.state());
  EXPECT_EQ(second.state(), first.state());
  const auto after = scales(second, pattern.substr(8));
  for (std::size_t i = 0; i < after.size(); ++i) EXPECT_EQ(after[i], expected[8 + i]) << i;
}

/// DeepSpeed's rule, step by step as its documentation and code have it.
struct DeepSpeedRule {
  LossScalerOptions options;
  double scale = std::ldexp(1.0, options.initial_scale_power);
  int hysteresis = options.hysteresis;
  std::int64_t iteration = 0, last_overflow = -1;

  /// False: the scale is as small as it may be, and a step overflowed.
  bool step(bool overflow) {
    if (overflow) {
      if (options.hysteresis == 1 || hysteresis == 1) {
        if (scale == options.minimum) return false;
        scale = std::max(scale / 2, options.minimum);
      } else {
        --hysteresis;
      }
      last_overflow = iteration;
    } else {
      if (options.consecutive_hysteresis) hysteresis = options.hysteresis;
      const std::int64_t stable = iteration - last_overflow - 1;
      if (stable > 0 && stable % options.window == 0) {
        if (!options.consecutive_hysteresis) hysteresis = options.hysteresis;
        scale *= 2;
      }
    }
    ++iteration;
    return true;
  }
};

TEST(LossScaler, FollowsDeepSpeedsRuleThroughRandomRuns) {
  const RandomStream random(5, 0);
  std::uint64_t next = 0;
  const auto pick = [&](int below) {
    return static_cast<int>(random.uniform(next++) * static_cast<float>(below));
  };
  int ended = 0;
  for (int run = 0; run < 200; ++run) {
    const LossScalerOptions options{.initial_scale_power = pick(12),
                                    .window = 1 + pick(6),
                                    .hysteresis = 1 + pick(4),
                                    .consecutive_hysteresis = pick(2) == 1,
                                    .minimum = std::ldexp(1.0, -pick(3))};
    DeepSpeedRule rule{options};
    LossScaler scaler(options);
    const int often = 2 + pick(8);  // one step in so many overflows
    for (int step = 0; step < 100; ++step) {
      const bool overflow = pick(often) == 0;
      EXPECT_EQ(scaler.begin_step(), rule.scale);
      if (!rule.step(overflow)) {
        EXPECT_THROW(scaler.finish_step(overflow), Error);
        ++ended;
        break;
      }
      scaler.finish_step(overflow);
      ASSERT_EQ(scaler.scale(), rule.scale) << "run " << run << " step " << step;
    }
  }
  EXPECT_GT(ended, 0);
  EXPECT_LT(ended, 200);
}

TEST(LossScaler, ImpossibleOptionsAndStatesAreRefused) {
  EXPECT_THROW(LossScaler({.static_scale = -1}), Error);
  EXPECT_THROW(LossScaler({.static_scale = std::nan("")}), Error);
  EXPECT_THROW(LossScaler({.static_scale = INFINITY}), Error);
  EXPECT_THROW(LossScaler({.initial_scale_power = 200}), Error);
  EXPECT_THROW(LossScaler({.window = 0}), Error);
  EXPECT_THROW(LossScaler({.hysteresis = 0}), Error);
  EXPECT_THROW(LossScaler({.minimum = 0}), Error);
  LossScaler scaler({});
  EXPECT_THROW(scaler.restore({.scale = -2}), Error);
  EXPECT_THROW(scaler.restore({.scale = 2, .iteration = 3, .last_overflow = 5}), Error);
}

}  // namespace
}  // namespace tessera::optim
