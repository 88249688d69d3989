// SPDX-License-Identifier: Apache-2.0
// What a right run file becomes.
#include "tessera/config/reader.hpp"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "config/support.hpp"

namespace tessera::config {
namespace {

using namespace testing;

const Entry& entry(const RunConfig& config, const std::string& path) {
  for (const Entry& one : config.entries)
    if (one.path == path) return one;
  throw std::out_of_range(path);
}

TEST(Reader, FillsEverySectionOfTheExample) {
  RunConfig config = read_example();
  resolve(config, on_ranks(4));
  EXPECT_TRUE(config.model.is_inline());
  EXPECT_EQ(config.data.train, std::vector<std::string>{"/usr/include/**/*.h"});
  EXPECT_EQ(config.data.validation_fraction, 0.01);
  EXPECT_EQ(config.data.sequence_length, 256);
  EXPECT_EQ(config.run.folder, "runs/headers");
  EXPECT_EQ(config.run.total_steps, 300);
  EXPECT_EQ(config.run.seed, 1234u);
  EXPECT_EQ(config.run.checkpoint.every, 100);
  EXPECT_EQ(config.run.validate.batches, 20);
  EXPECT_EQ(config.run.threads, 0);
  EXPECT_EQ(config.run.minutes, 60.0);
  EXPECT_EQ(config.mesh.data, 4);
  EXPECT_EQ(config.comm.transport, "auto");
  EXPECT_FALSE(config.comm.nodes.has_value());
  EXPECT_EQ(config.engine.batch, (Batch{32, 4, 2}));
  EXPECT_EQ(config.engine.optimizer.type, "AdamW");
  EXPECT_EQ(config.engine.optimizer.lr, 6e-4);
  EXPECT_EQ(config.engine.optimizer.beta2, 0.95);
  EXPECT_EQ(config.engine.optimizer.weight_decay, 0.1);
  EXPECT_EQ(config.engine.scheduler.type, "WarmupDecayLR");
  EXPECT_EQ(config.engine.scheduler.number("total_num_steps"), 300);
  EXPECT_EQ(config.engine.scheduler.number("warmup_max_lr"), 6e-4);
  EXPECT_EQ(config.engine.scheduler.text("warmup_type"), "log");
  EXPECT_EQ(config.engine.dtype, DType::bf16);
  EXPECT_EQ(config.engine.communication_dtype, DType::bf16);
  EXPECT_EQ(config.engine.zero.stage, 3);
  EXPECT_TRUE(config.notices.empty());
}

TEST(Reader, InlineModelBecomesAConfigJsonWithDefaults) {
  const auto model = nlohmann::json::parse(read_example().model.json);
  EXPECT_EQ(model["model_type"], "gpt2");
  EXPECT_EQ(model["n_embd"], 384);
  EXPECT_EQ(model["vocab_size"], "auto");
  EXPECT_EQ(model["attn_pdrop"], 0.1);
  EXPECT_TRUE(model["n_inner"].is_null());
}

TEST(Reader, DefaultsAreDeepSpeedsWhereItHasThem) {
  RunConfig config = read(with_engine("  train_batch_size: 8\n"));
  resolve(config, on_ranks(1));
  EXPECT_EQ(config.model.folder, "some-folder");
  EXPECT_EQ(config.run.folder, "runs/run");
  EXPECT_EQ(config.engine.gradient_clipping, 1.0);
  EXPECT_EQ(config.engine.optimizer.lr, 1e-3);
  EXPECT_EQ(config.engine.optimizer.beta2, 0.999);
  EXPECT_TRUE(config.engine.optimizer.decoupled);
  EXPECT_EQ(config.engine.scheduler.type, "constant");
  EXPECT_TRUE(config.engine.scheduler.params.empty());
  EXPECT_EQ(config.engine.zero.stage, 0);
  EXPECT_EQ(config.engine.dtype, DType::fp32);
  EXPECT_EQ(config.run.log_every, 10);
  EXPECT_EQ(config.comm.timeout_seconds, 600);
}

TEST(Reader, WholeNumbersMayBeWrittenWithAnExponent) {
  const RunConfig config = read(
      with_engine("  zero_optimization: {reduce_bucket_size: 5e8, allgather_bucket_size: 2.0e3,"
                  " stage3_prefetch_bucket_size: 5E7}\n"),
      {"run.steps=1e3"});
  EXPECT_EQ(config.engine.zero.reduce_bucket_size, 500'000'000);
  EXPECT_EQ(config.engine.zero.allgather_bucket_size, 2000);
  EXPECT_EQ(config.engine.zero.prefetch_bucket_size, 50'000'000);
  EXPECT_EQ(config.run.steps, 1000);
}

TEST(Reader, NullMeansDefault) {
  const RunConfig config =
      read(with_engine("  train_batch_size: 8\n  gradient_clipping: null\n  optimizer: ~\n"
                       "  bf16:\n  zero_optimization: {stage: null}\n"));
  EXPECT_EQ(config.engine.gradient_clipping, 1.0);
  EXPECT_EQ(config.engine.zero.stage, 0);
}

TEST(Reader, OneTextIsAListOfOne) {
  const RunConfig config = read(
      "model: m\ndata: {train: a.txt, validation: b.txt}\nrun: {epochs: 1.5}\nengine: "
      "{train_batch_size: 1}\n");
  EXPECT_EQ(config.data.train, std::vector<std::string>{"a.txt"});
  EXPECT_EQ(config.data.validation_files, std::vector<std::string>{"b.txt"});
  EXPECT_EQ(config.run.epochs, 1.5);
}

TEST(Reader, NodesAreListsOfRanks) {
  const RunConfig config = read_example({"comm.nodes=[[0, 1], [2, 3]]"});
  EXPECT_EQ(config.comm.nodes, (std::vector<std::vector<int>>{{0, 1}, {2, 3}}));
}

TEST(Reader, TypesOfOptimizersAndSchedulesIgnoreCase) {
  const RunConfig config =
      read_example({"engine.optimizer.type=adamw", "engine.scheduler.type=warmupdecaylr"});
  EXPECT_EQ(config.engine.optimizer.type, "AdamW");
  EXPECT_EQ(config.engine.scheduler.type, "WarmupDecayLR");
}

TEST(Reader, AdamCanAddDecayToTheGradient) {
  const RunConfig config = read(
      with_engine("  train_batch_size: 8\n  optimizer: {type: Adam, params: {adam_w_mode: false, "
                  "no_decay_patterns: ['*.wpe.*'], decay_all: true}}\n"));
  EXPECT_FALSE(config.engine.optimizer.decoupled);
  EXPECT_TRUE(config.engine.optimizer.decay_all);
  EXPECT_EQ(config.engine.optimizer.no_decay_patterns, std::vector<std::string>{"*.wpe.*"});
}

TEST(Reader, AdamWAlwaysDecouplesDecay) {
  const RunConfig config = read_example({"engine.optimizer.params.adam_w_mode=false"});
  EXPECT_TRUE(config.engine.optimizer.decoupled);
  EXPECT_EQ(config.notices.size(), 1u);
}

TEST(Reader, SgdHasItsOwnParameters) {
  const RunConfig config = read(with_engine(
      "  train_batch_size: 8\n  optimizer: {type: SGD, params: {lr: 0.1, momentum: 0.9, "
      "nesterov: true}}\n"));
  EXPECT_EQ(config.engine.optimizer.momentum, 0.9);
  EXPECT_TRUE(config.engine.optimizer.nesterov);
}

TEST(Reader, OldNamesMeanTheSame) {
  const RunConfig config =
      read(with_engine("  train_batch_size: 8\n  bfloat16: {enabled: true}\n"
                       "  zero_optimization: {stage: 3, prefetch_bucket_size: 77}\n"));
  EXPECT_EQ(entry(config, "engine.bf16.enabled").value, "true");
  EXPECT_EQ(config.engine.zero.prefetch_bucket_size, 77);
}

TEST(Reader, EveryValueKnowsWhereItCameFrom) {
  RunConfig config = read_example({"run.steps=10"});
  resolve(config, on_ranks(4));
  EXPECT_EQ(entry(config, "engine.zero_optimization.stage").source.to_string(), "run.yaml:31");
  EXPECT_EQ(entry(config, "model.n_layer").source.to_string(), "run.yaml:3");
  EXPECT_EQ(entry(config, "run.steps").source.to_string(), "--set");
  EXPECT_EQ(entry(config, "data.field").source.to_string(), "default");
  EXPECT_EQ(entry(config, "mesh.data").source.to_string(), "derived: the number of ranks");
}

TEST(Reader, AnchorsAndAliasesOfYamlWork) {
  const RunConfig config = read(
      "model: m\ndata: {train: [&a x.txt, *a]}\nrun: {steps: 1}\nengine: {train_batch_size: 1}\n");
  EXPECT_EQ(config.data.train, (std::vector<std::string>{"x.txt", "x.txt"}));
}

TEST(Reader, ValidatingWithoutValidationDataIsSaid) {
  const RunConfig config = read_example({"data.validation=0"});
  ASSERT_EQ(config.notices.size(), 1u);
  EXPECT_EQ(
      config.notices[0],
      "run.yaml:18: `run.validate.every` has no effect: `data.validation` holds nothing back");
}

TEST(Reader, OtherUsesNeedNoTrainingKeys) {
  ReadOptions options;
  options.for_training = false;
  RunConfig config = read_run_text("model: m\ndata: {sequence_length: 8}\n", "r.yaml", options);
  resolve(config, on_ranks(2));
  EXPECT_EQ(config.model.folder, "m");
  EXPECT_EQ(config.data.sequence_length, 8);
  EXPECT_EQ(config.engine.batch, Batch{});
}

}  // namespace
}  // namespace tessera::config
