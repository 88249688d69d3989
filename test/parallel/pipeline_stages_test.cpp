// SPDX-License-Identifier: Apache-2.0
// Where a network is cut into stages, and what is said where that cannot be.
#include "tessera/parallel/pipeline_stages.hpp"

#include <numeric>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tessera/base/error.hpp"

#include "support/expect_error.hpp"

namespace tessera::parallel {
namespace {

using Cuts = std::vector<int>;

std::vector<nn::LayerInfo> layers_of(const std::vector<std::int64_t>& parameters) {
  std::vector<nn::LayerInfo> layers;
  for (const std::int64_t count : parameters)
    layers.push_back({fmt::format("h.{}", layers.size()), count});
  layers.front().name = "embedding";
  layers.back().name = "final";
  return layers;
}

Cuts cut(const std::vector<std::int64_t>& parameters, int stages, const std::string& by) {
  return cut_layers(layers_of(parameters), stages, StageCut::parse(by));
}

TEST(StageCuts, AreAsEvenAsContiguousOnesCanBe) {
  EXPECT_EQ(cut({1, 1, 1, 1, 1, 1, 1, 1}, 3, "uniform"), (Cuts{0, 3, 6, 8}));
  EXPECT_EQ(cut({9, 9, 9, 1, 1, 1, 1, 1}, 4, "uniform"), (Cuts{0, 2, 4, 6, 8}));
  EXPECT_EQ(cut({10, 3, 3, 3, 3, 10}, 2, "parameters"), (Cuts{0, 3, 6}));
  EXPECT_EQ(cut({10, 3, 3, 3, 3, 10}, 4, "best"), (Cuts{0, 1, 3, 5, 6}));
  EXPECT_EQ(cut({1, 1, 1, 1, 1, 1}, 2, "type:^H"), (Cuts{0, 3, 6}));
  EXPECT_EQ(cut({1, 1, 1, 1, 1, 1}, 3, "1,4,1"), (Cuts{0, 1, 5, 6}));
}

// Against every division of up to nine layers.
TEST(StageCuts, NoOtherDivisionHasALighterHeaviestStage) {
  const std::vector<std::int64_t> weights = {7, 1, 5, 3, 3, 9, 2, 2, 8};
  const auto heaviest = [&](const Cuts& cuts) {
    std::int64_t most = 0;
    for (std::size_t s = 0; s + 1 < cuts.size(); ++s)
      most = std::max(most, std::accumulate(weights.begin() + cuts[s],
                                            weights.begin() + cuts[s + 1], std::int64_t{0}));
    return most;
  };
  for (unsigned mask = 0; mask < 1U << (weights.size() - 1); ++mask) {
    Cuts cuts = {0};
    for (std::size_t i = 1; i < weights.size(); ++i)
      if ((mask >> (i - 1) & 1U) != 0) cuts.push_back(static_cast<int>(i));
    cuts.push_back(static_cast<int>(weights.size()));
    const int stages = static_cast<int>(cuts.size()) - 1;
    EXPECT_LE(heaviest(cut(weights, stages, "parameters")), heaviest(cuts));
  }
}

TEST(StageCuts, WhatCannotBeIsNamedWithTheNumbers) {
  test::expect_error(Code::invalid_config, {"4 stages", "3 layers", "at most 3 stages"}, [] {
    cut({1, 1, 1}, 4, "parameters");
  });
  test::expect_error(Code::invalid_config, {"2 layers match 'h'", "3 stages", "at most 2"}, [] {
    cut({1, 1, 1, 1}, 3, "type:h");
  });
  test::expect_error(Code::invalid_config, {"[1, 2]", "3 layers", "2 stages and 4 layers"}, [] {
    cut({1, 1, 1, 1}, 2, "1,2");
  });
  test::expect_error(Code::invalid_config, {"some without any"}, [] {
    cut({1, 1, 1, 1}, 2, "4,0");
  });
  test::expect_error(Code::invalid_config, {"no regular expression"}, [] {
    cut({1, 1, 1, 1}, 2, "type:[");
  });
  test::expect_error(Code::invalid_config, {"stages by 'even'", "uniform"},
                     [] { StageCut::parse("even"); });
}

TEST(StageCuts, RanksHaveTheStagesOfTheSchedule) {
  const PipelineShape shape = PipelineShape{PipelineKind::zb_v, 2, 4}.resolved();
  const nn::PipelineAxis first = pipeline_axis(shape, {0, 1, 2, 3, 4}, 0);
  EXPECT_EQ(first.own, (Cuts{0, 3}));
  EXPECT_TRUE(first.has_first() && first.has_last());
  EXPECT_EQ(pipeline_axis(shape, {0, 1, 2, 3, 4}, 1).own, (Cuts{1, 2}));
}

}  // namespace
}  // namespace tessera::parallel
