// SPDX-License-Identifier: Apache-2.0
// Saving and loading masters and states: a resumed run continues with the same bits, in any stage.
#include <algorithm>
#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

#include "zero/training.hpp"
#include "zero/world.hpp"

namespace tessera::zero {
namespace {

using testing::Outcome;
using testing::usual_options;
using testing::world;

std::vector<float> floats(const std::vector<std::uint32_t>& bits) {
  std::vector<float> values;
  for (const std::uint32_t word : bits) values.push_back(testing::to_float(word));
  return values;
}

void restore_state(PartitionedOptimizer& optimizer, int parameter, const char* name,
                   const std::vector<std::uint32_t>& bits) {
  const Range held = optimizer.held(parameter);
  const std::vector<float> values = floats(bits);
  if (held.count > 0) optimizer.load_state(parameter, name, held, values.data() + held.begin);
}

void restore(PartitionedOptimizer& optimizer, const Outcome& saved, std::int64_t steps) {
  for (int p = 0; p < static_cast<int>(saved.master.size()); ++p) {
    const auto index = static_cast<std::size_t>(p);
    const std::vector<float> master = floats(saved.master[index]);
    optimizer.load(p, 0, static_cast<std::int64_t>(master.size()), master.data());
    restore_state(optimizer, p, "exp_avg", saved.exp_avg[index]);
    restore_state(optimizer, p, "exp_avg_sq", saved.exp_avg_sq[index]);
  }
  optimizer.finish_load();
  optimizer.set_steps(steps);
}

class Values : public ::testing::TestWithParam<DType> {};

TEST_P(Values, ContinueAnyStageFromAnyStage) {
  const Outcome uninterrupted = testing::train(world(), usual_options(0, GetParam()), 4);
  for (int from = 0; from < 4; ++from) {
    const Outcome saved = testing::train(world(), usual_options(from, GetParam()), 2);
    for (int to = 0; to < 4; ++to) {
      PartitionedOptimizer optimizer(world(), usual_options(to, GetParam()));
      testing::declare(optimizer, testing::awkward_model());
      optimizer.commit();
      restore(optimizer, saved, 2);
      testing::one_step(optimizer);
      testing::one_step(optimizer);
      EXPECT_EQ(optimizer.steps(), 4);
      EXPECT_TRUE(testing::outcome(optimizer).master == uninterrupted.master)
          << from << " to " << to;
    }
  }
}

TEST_P(Values, ReadBackExactly) {
  for (int stage = 0; stage < 4; ++stage) {
    PartitionedOptimizer optimizer(world(), usual_options(stage, GetParam()));
    testing::declare(optimizer, testing::awkward_model());
    optimizer.commit();
    testing::load_initial_values(optimizer);
    for (int p = 0; p < static_cast<int>(optimizer.layout().parameters().size()); ++p) {
      const Range held = optimizer.held(p);
      std::vector<float> values(static_cast<std::size_t>(held.count));
      optimizer.master(p, held.begin, held.count, values.data());
      for (std::int64_t i = 0; i < held.count; ++i)
        ASSERT_EQ(values[static_cast<std::size_t>(i)], testing::initial_value(p, held.begin + i));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, Values, ::testing::Values(DType::fp32, DType::bf16, DType::fp16),
                         [](const auto& type) { return std::string(to_string(type.param)); });

}  // namespace
}  // namespace tessera::zero
