// SPDX-License-Identifier: Apache-2.0
// Bytes of a rank against golden numbers worked out by hand from the formulas of doc/numerics.md.
#include "tessera/engine/estimate.hpp"

#include <gtest/gtest.h>

namespace tessera::engine {
namespace {

// One unit of 1 000 003 elements on 8 ranks: padded 1 000 064, a slice is 125 008.
zero::FlatLayout golden_layout() {
  zero::FlatLayout layout(8);
  layout.begin_unit("all");
  layout.add("w", {1000003});
  return layout;
}

std::int64_t states(int stage, DType dtype, std::int64_t accumulation = 1,
                    DType sums = DType::fp32) {
  EstimateInput input;
  input.accumulation_dtype = sums;
  input.stage = stage;
  input.dtype = dtype;
  input.accumulation = accumulation;
  const Estimate e = estimate_states(golden_layout(), input);
  return e.parameters + e.gradients + e.optimizer;
}

TEST(Estimate, SplitMasterTakesFourteenBytesAParameter) {
  EXPECT_EQ(states(0, DType::bf16), 14 * 1000064);
  EXPECT_EQ(states(1, DType::bf16), 4 * 1000064 + 10 * 125008);
  EXPECT_EQ(states(2, DType::bf16), 2 * 1000064 + 12 * 125008);
  EXPECT_EQ(states(3, DType::bf16), 1750112);
}

TEST(Estimate, Fp16HoldsItsWholeMaster) {
  EXPECT_EQ(states(0, DType::fp16), 16 * 1000064);
  EXPECT_EQ(states(1, DType::fp16), 4 * 1000064 + 12 * 125008);
  EXPECT_EQ(states(2, DType::fp16), 2 * 1000064 + 14 * 125008);
  EXPECT_EQ(states(3, DType::fp16), 16 * 125008);
}

TEST(Estimate, Fp32TakesSixteen) {
  EXPECT_EQ(states(0, DType::fp32), 16 * 1000064);
  EXPECT_EQ(states(1, DType::fp32), 8 * 1000064 + 8 * 125008);
  EXPECT_EQ(states(2, DType::fp32), 4 * 1000064 + 12 * 125008);
  EXPECT_EQ(states(3, DType::fp32), 2000128);
}

TEST(Estimate, AccumulatedGradientsAreFp32UnlessToldOtherwise) {
  EXPECT_EQ(states(0, DType::bf16, 3), 16 * 1000064);
  EXPECT_EQ(states(3, DType::bf16, 3), 16 * 125008);
  EXPECT_EQ(states(3, DType::fp16, 3), 18 * 125008);
  EXPECT_EQ(states(3, DType::bf16, 3, DType::bf16), 14 * 125008);
}

std::int64_t buckets(int stage, const EstimateInput& changed) {
  EstimateInput input = changed;
  input.stage = stage;
  input.dtype = DType::bf16;
  return estimate_states(golden_layout(), input).buckets;
}

TEST(Estimate, GradientsThatAreSentInAnotherTypeTakeTwoBuffers) {
  EstimateInput input;
  input.reduce_bucket_size = 8192;
  EXPECT_EQ(buckets(0, input), 0);
  EXPECT_EQ(buckets(2, input), 2 * 2 * 1000064);
  input.communication_dtype = DType::fp32;
  EXPECT_EQ(buckets(0, input), 2 * 4 * 8192);
  EXPECT_EQ(buckets(2, input), 2 * 2 * 1000064 + 2 * 4 * 8192);
  input.accumulation = 3;  // stages 0 and 1 send the fp32 sums as they are
  EXPECT_EQ(buckets(1, input), 0);
  input.communication_dtype = DType::bf16;
  EXPECT_EQ(buckets(1, input), 2 * 2 * 8192);
  input.reduce_every_micro_batch = true;
  EXPECT_EQ(buckets(0, input), 2 * 1000064);
  EXPECT_EQ(buckets(1, input), 2 * 2 * 1000064);
}

TEST(Estimate, AnAsynchronousSaveCopiesASlice) {
  for (const DType dtype : {DType::fp32, DType::bf16, DType::fp16})
    for (const int stage : {0, 3}) {
      EstimateInput input;
      input.stage = stage;
      input.dtype = dtype;
      EXPECT_EQ(estimate_states(golden_layout(), input).snapshot, 0);
      const std::int64_t plain = estimate_states(golden_layout(), input).total();
      input.asynchronous_saves = true;
      const Estimate estimate = estimate_states(golden_layout(), input);
      EXPECT_EQ(estimate.snapshot, 12 * 125008);
      EXPECT_EQ(estimate.total(), plain + estimate.snapshot);
    }
}

TEST(Estimate, GraphsKeepABitMoreThanAPassNeeds) {
  const auto model = nn::make_model(
      R"({"model_type": "gpt2", "n_layer": 3, "n_embd": 8, "n_head": 2, "vocab_size": 11})", {});
  config::RunConfig config;
  config.data.sequence_length = 16;
  config.engine.batch.micro = 2;
  const auto activations = [&](int stage) {
    return estimate_run(*model, config, 1, stage).activations;
  };
  const std::int64_t plain = activations(0);
  config.run.cuda_graph = true;
  // Four values of the residual stream, and six numbers a token.
  EXPECT_EQ(activations(1), plain + 2 * 16 * (4 * 8 * 4 + 24));
  EXPECT_EQ(activations(2), plain);
}

}  // namespace
}  // namespace tessera::engine
