// SPDX-License-Identifier: Apache-2.0
// Static and dynamic loss scaling: when the scale changes, and that gradients are divided by the
// scale that multiplied them.
#include "tessera/optim/loss_scaler.hpp"

#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"

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
