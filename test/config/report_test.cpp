// SPDX-License-Identifier: Apache-2.0
// A configuration as text.
#include "tessera/config/report.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "config/support.hpp"

namespace tessera::config {
namespace {

using namespace testing;
using ::testing::HasSubstr;

RunConfig resolved(const std::string& text, int ranks, std::vector<std::string> set = {}) {
  RunConfig config = read(text, std::move(set));
  Facts facts = on_ranks(ranks);
  facts.vocabulary = 257;
  facts.sequences = 1000;
  resolve(config, facts);
  return config;
}

TEST(Report, TextShowsEveryValueAndItsSource) {
  const std::string text = print_resolved(resolved(kRunFile, 4, {"engine.dump_state=true"}));
  EXPECT_THAT(text, ::testing::ContainsRegex("run.steps +300 +run.yaml:15\n"));
  EXPECT_THAT(text, ::testing::ContainsRegex("mesh.data +4 +derived: the number of ranks\n"));
  EXPECT_THAT(text, ::testing::ContainsRegex("data.field +\"text\" +default\n"));
  EXPECT_THAT(text, HasSubstr("\n--set: `engine.dump_state` has no effect here: "));
}

TEST(Report, JsonHoldsValuesAndSources) {
  const auto json = nlohmann::json::parse(to_json(resolved(kRunFile, 4)));
  EXPECT_EQ(json["engine.zero_optimization.stage"]["value"], 3);
  EXPECT_EQ(json["engine.zero_optimization.stage"]["source"], "run.yaml:31");
  EXPECT_EQ(json["engine.optimizer.params.betas"]["value"], (std::vector<double>{0.9, 0.95}));
  EXPECT_EQ(json["engine.gradient_accumulation_steps"]["value"], 2);
  EXPECT_TRUE(json["run.tokens"]["value"].is_null());
}

TEST(Report, YamlRepeatsTheRun) {
  const std::vector<std::vector<std::string>> sets = {
      {},
      {"model=folder/sub", "data.train=['a b.txt', '*.h', 'true', 'é\\n: x']"},
      {"run.steps=null", "run.tokens=1e9", "engine.scheduler=null"},
      {"run.steps=null", "run.epochs=1.5", "engine.optimizer={type: SGD, params: {lr: 0.1}}",
       "engine.scheduler.params.total_num_steps=auto"},
      {"comm.nodes=[[0, 1], [2, 3]]", "data.validation=[v.txt, '007']",
       "engine.fp16.enabled=false"},
      {"engine.scheduler={type: OneCycle, params: {cycle_min_lr: 1e-5, cycle_max_lr: 0.1}}",
       "engine.zero_optimization.sub_group_size=1e9", "run.folder='no'", "mesh.data=4"},
      {"engine.data_parallel_size=4", "engine.gradient_accumulation_steps=2"},
      {"engine.train_batch_size=null", "engine.gradient_accumulation_steps=3",
       "engine.amp={enabled: false, 'odd key': [1]}", "run.seed=9007199254740993"}};
  for (const auto& set : sets) {
    const RunConfig first = resolved(kRunFile, 4, set);
    const std::string yaml = to_yaml(first);
    const RunConfig second = resolved(yaml, 4);
    EXPECT_TRUE(first == second) << yaml;
    EXPECT_EQ(to_yaml(second), yaml);
  }
}

TEST(Report, YamlFitsOtherRankCounts) {
  const std::string yaml = to_yaml(resolved(kRunFile, 4));
  EXPECT_THAT(yaml, HasSubstr("  gradient_accumulation_steps: auto  # 2 in this run\n"));
  const RunConfig on_two = resolved(yaml, 2);
  EXPECT_EQ(on_two.engine.batch, (Batch{32, 4, 4}));
}

TEST(Report, YamlKeepsTheTypeThatWasChosenForGradients) {
  const std::string key = "  communication_data_type: ";
  EXPECT_THAT(to_yaml(resolved(kRunFile, 4)), HasSubstr(key + "auto  # "));
  EXPECT_THAT(to_yaml(resolved(kRunFile, 4, {"engine.communication_data_type=fp16"})),
              HasSubstr(key + "fp16\n"));
}

}  // namespace
}  // namespace tessera::config
