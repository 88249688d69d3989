// SPDX-License-Identifier: Apache-2.0
// Forecasts against runs that others published, and against the exact sizes of our own model.
#include "tessera/planning/forecast.hpp"

#include <tuple>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tessera/nn/models/gpt2.hpp"
#include "tessera/nn/models/llama.hpp"

namespace tessera::planning {
namespace {

using config::Recompute;
using parallel::PipelineKind;

// Korthikanti et al. 2022 (arXiv:2205.05198), Narayanan et al. 2021 (arXiv:2104.04473) and Smith et
// al. 2022 (arXiv:2201.11990), all on A100s.
struct Published {
  const char* name;
  std::int64_t layers, hidden, heads, batch;
  int tensor, pipeline, data, micro_batch, chunks;
  bool sequence_parallel;
  double seconds;
  double lowest, highest;  // of forecast / published
};

Workload workload(const Published& run) {
  Workload work;
  work.model = {run.layers, run.hidden, run.heads, 4 * run.hidden, 51200, 2048};
  work.batch = run.batch;
  work.length = 2048;
  work.dtype = DType::fp16;
  work.fused_attention = false;
  return work;
}

Layout layout(const Published& run) {
  Layout layout;
  layout.mesh = {run.pipeline, run.data, 1, run.tensor};
  layout.micro_batch = run.micro_batch;
  layout.recompute = run.sequence_parallel ? Recompute::selective : Recompute::full;
  layout.chunks = run.chunks;
  if (run.chunks > 1) layout.schedule = PipelineKind::interleaved;
  layout.sequence_parallel = run.sequence_parallel;
  return layout;
}

class PublishedRuns : public ::testing::TestWithParam<Published> {};

TEST_P(PublishedRuns, AreForeseen) {
  const Published& run = GetParam();
  const Forecast found = forecast(workload(run), find_machine("a100"), layout(run));
  const double ratio = found.seconds.total() / run.seconds;
  RecordProperty("ratio", fmt::format("{:.3f}", ratio));
  fmt::print("{:<24} {:7.2f} s, published {:7.2f} s, ratio {:.3f}\n", run.name,
             found.seconds.total(), run.seconds, ratio);
  EXPECT_GT(ratio, run.lowest);
  EXPECT_LT(ratio, run.highest);
}

INSTANTIATE_TEST_SUITE_P(
    A100, PublishedRuns,
    ::testing::Values(
        Published{"22B full", 48, 6144, 64, 4, 8, 1, 1, 4, 1, false, 1.42, 0.9, 1.1},
        Published{"175B full", 96, 12288, 96, 64, 8, 8, 1, 1, 3, false, 18.13, 0.9, 1.1},
        Published{"530B full", 105, 20480, 128, 280, 8, 35, 1, 1, 3, false, 49.05, 0.9, 1.1},
        Published{"1T full", 128, 25600, 160, 512, 8, 64, 1, 1, 1, false, 94.42, 0.9, 1.1},
        Published{"22B selective", 48, 6144, 64, 4, 8, 1, 1, 4, 1, true, 1.10, 0.9, 1.1},
        Published{"175B selective", 96, 12288, 96, 64, 8, 8, 1, 1, 3, true, 13.75, 0.9, 1.1},
        Published{"530B selective", 105, 20480, 128, 280, 8, 35, 1, 1, 3, true, 37.83, 0.9, 1.1},
        Published{"1T selective", 128, 25600, 160, 512, 8, 64, 1, 1, 1, true, 71.49, 0.9, 1.1},
        Published{"MT-NLG 530B, 2240", 105, 20480, 128, 1920, 8, 35, 8, 1, 1, false, 60.1, 0.7, 1},
        Published{"MT-NLG 530B, 2800", 105, 20480, 128, 1920, 8, 35, 10, 1, 1, false, 50.2, 0.7, 1},
        Published{"MT-NLG 530B, 3360", 105, 20480, 128, 1920, 8, 35, 12, 1, 1, false, 44.4, 0.7,
                  1}),
    [](const auto& run) { return fmt::format("Run{}", run.index); });

Workload small_workload() {
  Workload work;
  work.model = {4, 64, 4, 256, 128, 32};
  work.batch = 8;
  work.length = 32;
  work.dtype = DType::fp32;
  return work;
}

nn::Gpt2Config small_model() {
  nn::Gpt2Config config;
  config.n_layer = 4;
  config.n_embd = 64;
  config.n_head = 4;
  config.n_positions = 32;
  config.vocab_size = 128;
  config.embd_pdrop = config.attn_pdrop = config.resid_pdrop = 0;
  return config;
}

nn::LlamaConfig small_llama() {
  nn::LlamaConfig config;
  config.num_hidden_layers = 4;
  config.hidden_size = 64;
  config.intermediate_size = 256;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.max_position_embeddings = 32;
  config.vocab_size = 128;
  return config;
}

Workload llama_workload() {
  Workload work = small_workload();
  work.model.positions = 0;
  work.model.kv_heads = 2;
  work.model.gated = true;
  work.model.biased = work.model.tied = false;
  return work;
}

template <typename Model, typename Config>
void expect_sizes_of_the_model(const Workload& work, const Config& config) {
  for (const int tensor : {1, 2, 4})
    for (const bool token_shards : {false, true})
      for (const auto& [ours, theirs, every] : {std::tuple{Recompute::none, nn::Recompute::none, 1},
                                                {Recompute::selective, nn::Recompute::selective, 1},
                                                {Recompute::selective, nn::Recompute::selective, 3},
                                                {Recompute::full, nn::Recompute::full, 1},
                                                {Recompute::full, nn::Recompute::full, 2}}) {
        nn::ModelOptions options;
        options.recompute = theirs;
        options.recompute_every = every;
        options.sequence_parallel = token_shards;
        options.tensor.size = tensor;
        const Model model(config, options);
        Layout layout;
        layout.mesh = {1, 2, 1, tensor};
        layout.micro_batch = 2;
        layout.recompute = ours;
        layout.recompute_every = every;
        layout.sequence_parallel = token_shards;
        const Forecast found = forecast(work, find_machine("h100"), layout);
        EXPECT_EQ(found.memory.activations, model.activation_bytes(2, 32));
        EXPECT_EQ(work.model.parameters(), Model(config, {}).parameter_count());
      }
}

TEST(ForecastTest, ParametersAndActivationsAreThoseOfTheModel) {
  expect_sizes_of_the_model<nn::Gpt2>(small_workload(), small_model());
  expect_sizes_of_the_model<nn::Llama>(llama_workload(), small_llama());
}

TEST(ForecastTest, FlopsAreThoseOfTheModel) {
  const Workload work = small_workload();
  const nn::Gpt2 model(small_model(), {});
  EXPECT_EQ(static_cast<std::int64_t>(work.model_flops()), model.training_flops(8, 32));
  EXPECT_EQ(static_cast<std::int64_t>(llama_workload().model_flops()),
            nn::Llama(small_llama(), {}).training_flops(8, 32));
}

TEST(ForecastTest, HoldersOfAHeadSendEachOtherItsGradients) {
  const Workload work = llama_workload();
  Layout layout;
  layout.mesh = {1, 2, 1, 4};
  layout.micro_batch = 2;  // 2 micro-batches
  const Forecast found = forecast(work, find_machine("h100"), layout);
  const double state = 2 * 32 * 64 * 4, all_reduces = 2 * (4 * 4 + 2) * 2 * 3.0 / 4 * state;
  EXPECT_EQ(found.traffic.tensor, all_reduces + 2 * 4 * 2 * 64 * 16 * 4);
}

TEST(ForecastTest, TrafficFollowsTheFormulas) {
  const Workload work = small_workload();
  Layout layout;
  layout.mesh = {1, 2, 1, 4};
  layout.micro_batch = 2;  // 2 micro-batches
  Forecast found = forecast(work, find_machine("h100"), layout);
  const double state = 2 * 32 * 64 * 4;
  EXPECT_EQ(found.traffic.tensor, 2 * (4 * 4 + 2) * 2 * 3.0 / 4 * state);
  EXPECT_EQ(found.traffic.sequence, 0);
  EXPECT_EQ(found.traffic.pipeline, 0);
  // Halves of all-reduces: 10 of a layer, 4 of embedding and head; and gradients of 9 norms.
  layout.sequence_parallel = true;
  found = forecast(work, find_machine("h100"), layout);
  EXPECT_EQ(found.traffic.tensor, 2 * 3.0 / 4 * ((10 * 4 + 4) * state + 2 * 9 * 2 * 64 * 4));
  layout.mesh = {2, 2, 1, 2};
  EXPECT_EQ(forecast(work, find_machine("h100"), layout).traffic.pipeline, 2 * 2 * state / 2);
  layout.sequence_parallel = false;
  layout.mesh = {2, 2, 2, 1};
  found = forecast(work, find_machine("h100"), layout);
  EXPECT_EQ(found.traffic.tensor, 0);
  EXPECT_EQ(found.traffic.pipeline, 2 * 2 * state / 2);
  // Ulysses, forward and backward: (c - 1) / c of 4 states of the shard, in 2 layers of a stage
  EXPECT_EQ(found.traffic.sequence, 2 * 2 * 2 * 0.5 * 4 * state / 2);
  // More ranks than heads: keys and values pass by all of them, backward with their gradients.
  layout.mesh = {1, 2, 8, 1};
  found = forecast(work, find_machine("h100"), layout);
  EXPECT_EQ(found.traffic.sequence, 2 * 4 * 3 * 7 * 2 * state / 8);
  layout.recompute = config::Recompute::full;
  found = forecast(work, find_machine("h100"), layout);
  EXPECT_EQ(found.traffic.sequence, 2 * 4 * 4 * 7 * 2 * state / 8);
}

TEST(ForecastTest, StagesOfZeroTradeMemoryForTraffic) {
  Workload work = small_workload();
  Layout layout;
  layout.mesh = {1, 8, 1, 1};
  double memory = 1e30, traffic = 0;
  for (layout.stage = 0; layout.stage <= 3; ++layout.stage) {
    const Forecast found = forecast(work, find_machine("h100"), layout);
    EXPECT_GE(found.traffic.data, traffic) << layout.stage;
    // Buckets of gradients weigh more than a model as small as this.
    EXPECT_TRUE(layout.stage >= 2 || static_cast<double>(found.memory.states) < memory);
    memory = static_cast<double>(found.memory.states);
    traffic = found.traffic.data;
  }
}

}  // namespace
}  // namespace tessera::planning
