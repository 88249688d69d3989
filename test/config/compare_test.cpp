// SPDX-License-Identifier: Apache-2.0
// Whether two configurations belong to one run.
#include "tessera/config/compare.hpp"

#include <gtest/gtest.h>

#include "tessera/config/report.hpp"

#include "config/support.hpp"

namespace tessera::config {
namespace {

using namespace testing;

RunConfig resolved(std::vector<std::string> set, int ranks = 4) {
  RunConfig config = read_example(std::move(set));
  resolve(config, on_ranks(ranks));
  return config;
}

TEST(Compare, WhatMayChangeIsNoDifference) {
  const RunConfig base = resolved({});
  for (const char* set :
       {"engine.zero_optimization.stage=1", "comm.transport=mpi", "run.threads=1", "run.steps=900",
        "run.folder=other", "engine.optimizer.params.lr=1", "engine.bf16.enabled=false",
        "run.checkpoint.every=3", "engine.train_micro_batch_size_per_gpu=8", "run.recompute=full"})
    EXPECT_FALSE(compare(base, resolved({set})).has_value()) << set;
  EXPECT_FALSE(compare(base, resolved({}, 2)).has_value());
}

TEST(Compare, ARunsOwnFileNeedsNoResolving) {
  RunConfig first = read_example({"mesh.data=4", "engine.gradient_accumulation_steps=2"});
  Facts facts = on_ranks(4);
  facts.vocabulary = 257;
  resolve(first, facts);
  const RunConfig made_with = read(to_yaml(first));
  RunConfig now = read_example({"engine.train_micro_batch_size_per_gpu=1"});
  facts.ranks = 16;
  resolve(now, facts);
  EXPECT_FALSE(compare(made_with, now).has_value());
}

TEST(Compare, WhatMayNotChangeIsNamed) {
  const RunConfig base = resolved({});
  const std::vector<std::pair<std::string, std::string>> changes = {
      {"model.n_layer", "7"},
      {"data.train", "[x]"},
      {"data.validation", "0.5"},
      {"data.tokenizer", "t"},
      {"data.sequence_length", "8"},
      {"data.field", "f"},
      {"run.seed", "7"},
      {"engine.train_batch_size", "64"},
      {"engine.optimizer.type", "Adam"},
      {"model", "folder"}};
  for (const auto& [path, value] : changes) {
    const auto found = compare(base, resolved({path + "=" + value}));
    ASSERT_TRUE(found.has_value()) << path;
    EXPECT_EQ(found->path, path);
    EXPECT_NE(found->first, found->second);
  }
}

TEST(Compare, ModelsCompareKeyByKey) {
  RunConfig a = resolved({}), b = a;
  a.model.json = R"({"n_layer": 2, "n_inner": null, "x": 1})";
  b.model.json = R"({"x": 1, "n_layer": 2})";
  EXPECT_FALSE(compare(a, b).has_value());
  b.model.json = R"({"x": 1, "n_layer": 2, "y": 3})";
  const auto found = compare(a, b);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->path, "model.y");
  EXPECT_EQ(found->first, "");
  EXPECT_EQ(found->second, "3");
}

TEST(Compare, FingerprintsDependOnValuesAlone) {
  const RunConfig base = resolved({});
  const RunConfig moved = [] {
    RunConfig config = read("\n\n" + kRunFile, {}, "other.yaml");
    resolve(config, on_ranks(4));
    return config;
  }();
  EXPECT_EQ(fingerprint(base), fingerprint(moved));
  EXPECT_NE(fingerprint(base), fingerprint(resolved({"run.minutes=61"})));
}

TEST(Compare, FirstDifferenceOfTwoTextsIsNamed) {
  const std::string a = canonical_text(resolved({}));
  EXPECT_FALSE(first_difference(a, a).has_value());
  const auto found = first_difference(a, canonical_text(resolved({"run.seed=5"})));
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->path, "run.seed");
  EXPECT_EQ(found->first, "1234");
  EXPECT_EQ(found->second, "5");
  const auto longer = first_difference("a: 1\n", "a: 1\nb: 2\n");
  ASSERT_TRUE(longer.has_value());
  EXPECT_EQ(longer->path, "b");
  EXPECT_EQ(longer->first, "");
}

}  // namespace
}  // namespace tessera::config
