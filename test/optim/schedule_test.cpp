// SPDX-License-Identifier: Apache-2.0
// Schedules: values worked out by hand from DeepSpeed's formulas, special cases, bad parameters.
#include "tessera/optim/schedule.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"

namespace tessera::optim {
namespace {

using Parameters = std::map<std::string, ScheduleParameter>;
using Values = std::vector<double>;

std::unique_ptr<Schedule> schedule(const std::string& type, const Parameters& parameters,
                                   double lr = 1) {
  return make_schedule({.type = type, .parameters = parameters}, lr);
}

/// Learning rates of the updates 0, 1, ….
void expect_lr(const Schedule& schedule, const Values& expected) {
  for (std::size_t k = 0; k < expected.size(); ++k)
    EXPECT_NEAR(schedule.at(static_cast<std::int64_t>(k)).lr, expected[k], 1e-12) << "k = " << k;
}

void expect_momentum(const Schedule& schedule, const Values& expected) {
  for (std::size_t k = 0; k < expected.size(); ++k) {
    const auto momentum = schedule.at(static_cast<std::int64_t>(k)).momentum;
    ASSERT_TRUE(momentum.has_value());
    EXPECT_NEAR(*momentum, expected[k], 1e-12) << "k = " << k;
  }
}

TEST(Constant, IsTheOptimizersOwn) {
  expect_lr(*make_schedule({}, 0.25), {0.25, 0.25, 0.25});
  EXPECT_FALSE(make_schedule({}, 0.25)->at(7).momentum.has_value());
}

TEST(WarmupLr, LogarithmicIsTheDefault) {
  // min + (max - min) log10(k) for k = 1 … 10; update 0 has the value of construction, min.
  const auto s = schedule(
      "WarmupLR",
      {{"warmup_min_lr", 0.1}, {"warmup_max_lr", 1.1}, {"warmup_num_steps", std::int64_t{10}}});
  expect_lr(*s, {0.1, 0.1, 0.4010299956639812, 0.5771212547196624, 0.7020599913279624,
                 0.7989700043360187});
  EXPECT_DOUBLE_EQ(s->at(10).lr, 1.1);
  EXPECT_DOUBLE_EQ(s->at(1000).lr, 1.1);
}

TEST(WarmupLr, LinearAndTheOptimizersLrAsMaximum) {
  const auto s = schedule(
      "WarmupLR", {{"warmup_num_steps", std::int64_t{4}}, {"warmup_type", std::string("linear")}},
      8e-4);
  expect_lr(*s, {0, 0, 2e-4, 4e-4, 6e-4, 8e-4, 8e-4});
}

TEST(WarmupLr, OneStepIsTakenAsTwo) {
  const auto s = schedule("WarmupLR", {{"warmup_num_steps", std::int64_t{1}}});
  expect_lr(*s, {0, 0, 1, 1});  // log(2) / log(2) at t = 1
  const auto linear =
      schedule("WarmupLR", {{"warmup_num_steps", 1.0}, {"warmup_type", std::string("linear")}});
  expect_lr(*linear, {0, 0, 0.5, 1});
}

TEST(WarmupDecayLr, FallsToZeroAndStaysThere) {
  const auto s = schedule("WarmupDecayLR", {{"warmup_num_steps", std::int64_t{4}},
                                            {"total_num_steps", std::int64_t{10}},
                                            {"warmup_type", std::string("linear")}});
  expect_lr(*s, {0, 0, 0.25, 0.5, 0.75, 1, 5.0 / 6, 4.0 / 6, 0.5, 2.0 / 6, 1.0 / 6, 0, 0, 0});
}

TEST(WarmupDecayLr, DecaysToItsMinimum) {
  const auto s = schedule("WarmupDecayLR", {{"warmup_min_lr", 0.2},
                                            {"warmup_num_steps", std::int64_t{2}},
                                            {"total_num_steps", std::int64_t{4}}});
  expect_lr(*s, {0.2, 0.2, 1, 1, 0.6, 0.2, 0.2});
}

TEST(WarmupDecayLr, TotalShorterThanTheWarmup) {
  const auto s = schedule("WarmupDecayLR", {{"warmup_num_steps", std::int64_t{4}},
                                            {"total_num_steps", std::int64_t{3}},
                                            {"warmup_type", std::string("linear")}});
  expect_lr(*s, {0, 0, 0.25, 0.5, 0.75, 0, 0});
}

TEST(WarmupCosineLr, StartsAtZeroAndEndsAtItsFloor) {
  const auto s = schedule("WarmupCosineLR",
                          {{"warmup_num_steps", std::int64_t{4}},
                           {"total_num_steps", std::int64_t{12}},
                           {"warmup_min_ratio", 0.5},
                           {"cos_min_ratio", 0.1},
                           {"warmup_type", std::string("linear")}},
                          2);
  // The floor of the warm-up does not hold for update 0. Half way down, at t = 7, the factor is
  // (1 + 0.1) / 2; a quarter down 0.1 + 0.9 (1 + sqrt(1/2)) / 2.
  expect_lr(*s, {0, 1, 1.25, 1.5, 1.75, 1.9314915792601581, 1.7363961030678927});
  EXPECT_NEAR(s->at(8).lr, 1.1, 1e-12);
  for (const int k : {12, 13, 100}) EXPECT_NEAR(s->at(k).lr, 0.2, 1e-12);
}

TEST(WarmupCosineLr, LogarithmicDefaults) {
  const auto s = schedule("WarmupCosineLR", {{"warmup_num_steps", std::int64_t{8}},
                                             {"total_num_steps", std::int64_t{16}}});
  expect_lr(*s, {0, 0, 1.0 / 3, 0.52832083357371873, 2.0 / 3});
  EXPECT_NEAR(s->at(8).lr, 1, 1e-12);
  EXPECT_NEAR(s->at(9).lr, 0.9619435722790178, 1e-12);
  EXPECT_NEAR(s->at(16).lr, 1e-4, 1e-12);
}

Parameters small_cycle() {
  return {{"cycle_min_lr", 0.1},
          {"cycle_max_lr", 0.5},
          {"cycle_first_step_size", std::int64_t{4}},
          {"cycle_second_step_size", std::int64_t{2}}};
}

TEST(OneCycle, RisesFallsAndStaysAtTheMinimum) {
  const auto s = schedule("OneCycle", small_cycle());
  expect_lr(*s, {0.1, 0.2, 0.3, 0.4, 0.5, 0.3, 0.1, 0.1, 0.1});
  // At construction the momentum is at its minimum, too.
  expect_momentum(*s, {0.8, 0.875, 0.85, 0.825, 0.8, 0.85, 0.9, 0.9, 0.9});
}

TEST(OneCycle, SecondHalfHasTheLengthOfTheFirst) {
  auto parameters = small_cycle();
  parameters.erase("cycle_second_step_size");
  expect_lr(*schedule("OneCycle", parameters), {0.1, 0.2, 0.3, 0.4, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1});
}

TEST(OneCycle, DecaysAfterTheCycle) {
  auto parameters = small_cycle();
  parameters["decay_step_size"] = std::int64_t{2};
  parameters["decay_lr_rate"] = 0.5;
  parameters["decay_mom_rate"] = 0.1;
  const auto s = schedule("OneCycle", parameters);
  EXPECT_NEAR(s->at(6).lr, 0.1, 1e-12);
  EXPECT_NEAR(s->at(7).lr, 0.1 / 1.25, 1e-12);
  EXPECT_NEAR(s->at(8).lr, 0.1 / 1.5, 1e-12);
  EXPECT_NEAR(*s->at(7).momentum, 0.945, 1e-12);
  EXPECT_NEAR(*s->at(8).momentum, 0.99, 1e-12);
  // DeepSpeed goes on to 1.035 and beyond.
  EXPECT_EQ(*s->at(9).momentum, kLargestMomentum);
  EXPECT_EQ(*s->at(1000).momentum, kLargestMomentum);
}

TEST(OneCycle, StairsHoldBothValues) {
  auto parameters = small_cycle();
  parameters["cycle_first_stair_count"] = std::int64_t{2};
  const auto s = schedule("OneCycle", parameters);
  expect_lr(*s, {0.1, 0.1, 0.3, 0.3, 0.5, 0.3, 0.1});
  expect_momentum(*s, {0.8, 0.9, 0.85, 0.85, 0.8, 0.85, 0.9});
}

TEST(OneCycle, MomentumCanBeLeftAlone) {
  auto parameters = small_cycle();
  parameters["cycle_momentum"] = false;
  EXPECT_FALSE(schedule("OneCycle", parameters)->at(3).momentum.has_value());
}

TEST(LrRangeTest, RisesSmoothlyOrInStairs) {
  Parameters parameters{{"lr_range_test_min_lr", 0.1},
                        {"lr_range_test_step_size", std::int64_t{2}},
                        {"lr_range_test_step_rate", std::int64_t{3}}};
  expect_lr(*schedule("LRRangeTest", parameters), {0.1, 0.25, 0.4, 0.55, 0.7});
  parameters["lr_range_test_staircase"] = true;
  expect_lr(*schedule("lrrangetest", parameters), {0.1, 0.1, 0.4, 0.4, 0.7});
}

TEST(LrRangeTest, Defaults) {
  EXPECT_NEAR(schedule("LRRangeTest", {})->at(2000).lr, 2e-3, 1e-15);
}

void expect_refused(const std::string& type, const Parameters& parameters,
                    const std::string& part) {
  try {
    schedule(type, parameters);
    FAIL() << "accepted; expected a message with " << part;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::invalid_config);
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
  }
}

TEST(ScheduleErrors, EachNamesTheParameterAndItsValue) {
  expect_refused("Cosine", {}, "\"Cosine\" is not known; there are constant, WarmupLR");
  expect_refused("WarmupLR", {{"warmup_steps", 3.0}}, "no parameter warmup_steps; it has");
  expect_refused("constant", {{"lr", 3.0}}, "it has none");
  expect_refused("WarmupLR", {{"warmup_num_steps", 2.5}}, "warmup_num_steps is 2.5");
  expect_refused("WarmupLR", {{"warmup_num_steps", std::int64_t{0}}}, "warmup_num_steps is 0");
  expect_refused("WarmupLR", {{"warmup_num_steps", true}}, "warmup_num_steps is true");
  expect_refused("WarmupLR", {{"warmup_type", std::string("cubic")}}, "warmup_type is \"cubic\"");
  expect_refused("WarmupLR", {{"warmup_max_lr", -1.0}}, "warmup_max_lr is -1");
  expect_refused("WarmupLR", {{"warmup_max_lr", std::string("big")}}, "warmup_max_lr is \"big\"");
  expect_refused("WarmupDecayLR", {}, "needs the parameter total_num_steps");
  expect_refused("WarmupCosineLR", {}, "needs the parameter total_num_steps");
  expect_refused("OneCycle", {{"cycle_min_lr", 0.1}}, "needs the parameter cycle_max_lr");
  expect_refused("LRRangeTest", {{"lr_range_test_staircase", 1.0}}, "true or false");
  auto parameters = small_cycle();
  parameters["cycle_max_mom"] = 1.0;
  expect_refused("OneCycle", parameters, "cycle_max_mom is 1");
}

TEST(ScheduleNames, AreListedForConfigurations) {
  for (const auto& type : schedule_types())
    EXPECT_EQ(schedule_parameter_names(type).empty(), type == "constant") << type;
  const auto names = schedule_parameter_names("onecycle");
  EXPECT_NE(std::find(names.begin(), names.end(), "decay_mom_rate"), names.end());
  EXPECT_TRUE(schedule_parameter_names("nothing").empty());
}

}  // namespace
}  // namespace tessera::optim
