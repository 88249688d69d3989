// SPDX-License-Identifier: Apache-2.0
// What is filled in when ranks, tokenizer and data are known.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/support.hpp"

namespace tessera::config {
namespace {

using namespace testing;
using ::testing::HasSubstr;
using ::testing::StartsWith;

RunConfig resolved(std::vector<std::string> set, const Facts& facts) {
  RunConfig config = read_example(std::move(set));
  resolve(config, facts);
  return config;
}

std::string refused(std::vector<std::string> set, const Facts& facts) {
  return refusal([&] { resolved(std::move(set), facts); });
}

TEST(Resolve, TheMeshTakesAllRanks) {
  EXPECT_EQ(resolved({}, on_ranks(8)).mesh.data, 8);
  EXPECT_EQ(resolved({}, Facts{}).mesh.data, 1);
  EXPECT_EQ(resolved({"mesh.data=2"}, Facts{}).mesh.data, 2);
  EXPECT_EQ(resolved({"engine.data_parallel_size=2"}, on_ranks(2)).mesh.data, 2);
}

TEST(Resolve, AMeshThatDoesNotFitTheRanksIsRefused) {
  EXPECT_THAT(refused({"mesh.data=3"}, on_ranks(4)),
              HasSubstr("`mesh.data` is 3, but there are 4 ranks"));
  EXPECT_THAT(refused({"engine.data_parallel_size=3"}, on_ranks(4)),
              HasSubstr("`engine.data_parallel_size` is 3, but there are 4 ranks"));
  EXPECT_THAT(refused({"engine.data_parallel_size=3", "mesh.data=4"}, on_ranks(4)),
              HasSubstr("but `mesh.data` is 4"));
}

TEST(Resolve, TheFewestRanksAreThoseOfMeshAndBatch) {
  const auto fewest = [](std::vector<std::string> set) {
    return fewest_ranks(read_example(std::move(set)));
  };
  // The example says train_batch_size 32 and a micro-batch of 4.
  EXPECT_EQ(fewest({}), 1);
  EXPECT_EQ(fewest({"mesh.tensor=3", "mesh.pipeline=null", "engine.pipeline.stages=2"}), 6);
  EXPECT_EQ(fewest({"mesh.tensor=3", "mesh.data=4"}), 12);
  EXPECT_EQ(fewest({"mesh.tensor=3", "engine.gradient_accumulation_steps=4"}), 6);
  EXPECT_EQ(fewest({"mesh.tensor=3", "engine.gradient_accumulation_steps=400"}), 3);
  EXPECT_EQ(fewest({"mesh.tensor=3", "comm.nodes=[[0, 1, 2], [3, 4, 5]]"}), 6);
  for (const char* many : {"mesh.data=1000000000", "mesh.pipeline=1000000000"})
    EXPECT_THAT(refusal([&] {
                  fewest({many, "mesh.sequence=1000000000"});
                }),
                HasSubstr("ask for more than 1048576 ranks"));
}

TEST(Resolve, BatchesThatDoNotFitNameTheLine) {
  EXPECT_THAT(refused({}, on_ranks(3)),
              StartsWith("invalid configuration: run.yaml:25: the batch sizes do not fit"));
  EXPECT_THAT(refusal([] {
                RunConfig config = read(with_engine("  steps_per_print: 1\n"));
                resolve(config, on_ranks(1));
              }),
              HasSubstr("run.yaml: the batch sizes do not fit: train_batch_size not given"));
}

TEST(Resolve, MayRunAgainWithOtherFacts) {
  RunConfig config = read_example();
  resolve(config, on_ranks(1));
  EXPECT_EQ(config.engine.batch, (Batch{32, 4, 8}));
  resolve(config, on_ranks(4));
  EXPECT_EQ(config.engine.batch, (Batch{32, 4, 2}));
}

TEST(Resolve, TheTokenizerGivesTheVocabulary) {
  Facts facts = on_ranks(4);
  EXPECT_THAT(resolved({}, facts).model.json, HasSubstr("\"vocab_size\": \"auto\""));
  facts.vocabulary = 257;
  EXPECT_THAT(resolved({}, facts).model.json, HasSubstr("\"vocab_size\": 257"));
  EXPECT_THAT(resolved({"model.vocab_size=512"}, facts).model.json,
              HasSubstr("\"vocab_size\": 512"));
  EXPECT_THAT(refused({"model.vocab_size=100"}, facts),
              HasSubstr("is 100, but the tokenizer bytes has 257 tokens"));
}

TEST(Resolve, TheModelGivesTheSequenceLength) {
  Facts facts = on_ranks(4);
  EXPECT_EQ(resolved({"data.sequence_length=auto"}, facts).data.sequence_length, 256);
  EXPECT_EQ(resolved({"data.sequence_length=auto", "model=m"}, facts).data.sequence_length, 0);
  facts.positions = 64;
  EXPECT_EQ(resolved({"data.sequence_length=auto", "model=m"}, facts).data.sequence_length, 64);
  EXPECT_THAT(refused({"model=m"}, facts),
              HasSubstr("run.yaml:12: `data.sequence_length` is 256, but the model has 64"));
}

TEST(Resolve, TokensAndEpochsBecomeSteps) {
  Facts facts = on_ranks(4);
  const std::vector<std::string> tokens = {"run.steps=null", "run.tokens=1e6",
                                           "engine.scheduler.params.total_num_steps=auto"};
  const RunConfig by_tokens = resolved(tokens, facts);
  EXPECT_EQ(by_tokens.run.total_steps, 123);  // 1e6 / (32 × 256) = 122.07…
  EXPECT_EQ(by_tokens.engine.scheduler.number("total_num_steps"), 123);
  const std::vector<std::string> epochs = {"run.steps=null", "run.epochs=2.5",
                                           "engine.scheduler.params.total_num_steps=null"};
  EXPECT_EQ(resolved(epochs, facts).run.total_steps, 0);
  EXPECT_FALSE(resolved(epochs, facts).engine.scheduler.has("total_num_steps"));
  facts.sequences = 100;
  EXPECT_EQ(resolved(epochs, facts).run.total_steps, 8);  // 250 / 32 = 7.8…
  EXPECT_EQ(resolved(epochs, facts).engine.scheduler.number("total_num_steps"), 8);
  facts.sequences = 1;
  EXPECT_EQ(resolved(epochs, facts).run.total_steps, 1);
}

TEST(Resolve, TimelinesAreOfStepsThatTheRunHas) {
  EXPECT_EQ(resolved({"run.timeline=steps 3-5"}, Facts{}).run.timeline, (StepRange{3, 5}));
  EXPECT_EQ(resolved({"run.timeline=step 3"}, Facts{}).run.timeline, (StepRange{3, 3}));
  EXPECT_EQ(resolved({"run.timeline=3"}, Facts{}).run.timeline, (StepRange{3, 3}));
  EXPECT_EQ(resolved({"run.timeline=none"}, Facts{}).run.timeline, std::nullopt);
  EXPECT_THAT(refused({"run.steps=4", "run.timeline=steps 3-5"}, Facts{}),
              HasSubstr("`run.timeline` is \"steps 3-5\", but the run has 4 steps"));
}

TEST(Resolve, GradientsAreSentInTheRunsTypeOrTheOneGiven) {
  const std::string key = "engine.communication_data_type=";
  EXPECT_EQ(resolved({}, on_ranks(4)).engine.communication_dtype, DType::bf16);
  EXPECT_EQ(resolved({key + "auto"}, on_ranks(4)).engine.communication_dtype, DType::bf16);
  for (const DType sent : {DType::fp32, DType::bf16, DType::fp16}) {
    const EngineConfig engine = resolved({key + to_string(sent)}, on_ranks(4)).engine;
    EXPECT_EQ(engine.dtype, DType::bf16);
    EXPECT_EQ(engine.communication_dtype, sent);
  }
  EXPECT_THAT(refused({key + "fp64"}, on_ranks(4)), HasSubstr("communication_data_type"));
}

TEST(Resolve, Fp16HasDeepSpeedsKeysAndDefaults) {
  EXPECT_FALSE(resolved({}, on_ranks(4)).engine.fp16);
  const std::vector<std::string> on = {"engine.bf16=null", "engine.fp16.enabled=true"};
  const EngineConfig engine = resolved(on, on_ranks(4)).engine;
  EXPECT_EQ(engine.dtype, DType::fp16);
  EXPECT_EQ(engine.communication_dtype, DType::fp16);
  EXPECT_EQ(engine.fp16, (Fp16Config{0, 16, 1000, 2, false, 1}));
  EXPECT_EQ(resolved({"engine.bf16=null",
                      "engine.fp16={enabled: true, loss_scale: 8, initial_scale_power: 20, "
                      "loss_scale_window: 5, hysteresis: 3, consecutive_hysteresis: true, "
                      "min_loss_scale: 0.5}"},
                     on_ranks(4))
                .engine.fp16,
            (Fp16Config{8, 20, 5, 3, true, 0.5}));
  EXPECT_EQ(resolved({"engine.bf16=null", "engine.fp16.enabled=auto"}, on_ranks(4)).engine.dtype,
            DType::fp32);
}

TEST(Resolve, Bf16ByProcessorGivesWayToFp16) {
  Facts facts = on_ranks(4);
  facts.bf16_instructions = true;
  const std::vector<std::string> both = {"engine.bf16.enabled=auto", "engine.fp16.enabled=true"};
  EXPECT_EQ(resolved(both, facts).engine.dtype, DType::fp16);
}

TEST(Resolve, GradientsAccumulateInFp32OrTheRunsType) {
  const std::string key = "engine.data_types.grad_accum_dtype";
  EXPECT_EQ(resolved({}, on_ranks(4)).engine.accumulation_dtype, DType::fp32);
  EXPECT_EQ(resolved({key + "=auto"}, on_ranks(4)).engine.accumulation_dtype, DType::fp32);
  EXPECT_EQ(resolved({key + "=bf16"}, on_ranks(4)).engine.accumulation_dtype, DType::bf16);
  EXPECT_EQ(refused({key + "=fp16"}, on_ranks(4)),
            "not supported: --set: `" + key +
                "` is fp16 in a run in bf16, which is not available yet; leave it at fp32");
}

TEST(Resolve, LogPeriodComesFromEitherSection) {
  EXPECT_EQ(resolved({}, on_ranks(1)).run.log_every, 10);
  EXPECT_EQ(resolved({"engine.steps_per_print=3"}, on_ranks(1)).run.log_every, 3);
  EXPECT_EQ(resolved({"engine.steps_per_print=3", "run.log_every=4"}, on_ranks(1)).run.log_every,
            4);
}

}  // namespace
}  // namespace tessera::config
