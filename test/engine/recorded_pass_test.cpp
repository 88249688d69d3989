// SPDX-License-Identifier: Apache-2.0
// Training with the passes of micro-batches launched as graphs: the same bits as without.
#include <algorithm>
#include <functional>
#include <optional>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tessera/base/cpu_features.hpp"
#include "tessera/base/random.hpp"
#include "tessera/comm/runtime.hpp"
#include "tessera/engine/device_choice.hpp"
#include "tessera/engine/engine.hpp"
#include "tessera/kernels/gemm.hpp"
#include "tessera/parallel/model_state.hpp"

#include "support/expect_error.hpp"
#include "support/temporary_folder.hpp"
#include "support/test_device.hpp"

namespace tessera::engine {
namespace {

constexpr std::int64_t kVocabulary = 61, kPositions = 12;

struct Case {
  int stage = 0;
  int accumulation = 1;
  DType dtype = DType::fp32;
  nn::Recompute recompute = nn::Recompute::none;
  bool reduce_every_micro_batch = false;
  std::int64_t positions = kPositions;
  double dropout = 0.2;
  bool llama = false;
};

/// As small as a model can be, with dropout everywhere.
std::unique_ptr<nn::Model> small_model(const Case& how) {
  if (how.llama)
    return nn::make_model(
        fmt::format(R"({{"model_type": "llama", "vocab_size": {}, "max_position_embeddings": {},
                       "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
                       "num_attention_heads": 4, "num_key_value_heads": 2,
                       "attention_dropout": {}}})",
                    kVocabulary, how.positions, how.dropout),
        {.dtype = how.dtype, .recompute = how.recompute});
  return nn::make_model(
      fmt::format(R"({{"model_type": "gpt2", "vocab_size": {0}, "n_positions": {1}, "n_embd": 16,
                     "n_layer": 2, "n_head": 2, "attn_pdrop": {2}, "embd_pdrop": {2},
                     "resid_pdrop": {2}}})",
                  kVocabulary, how.positions, how.dropout),
      {.dtype = how.dtype, .recompute = how.recompute});
}

/// Rows that depend on the number of the first one and on nothing else.
nn::Batch make_batch(std::int64_t first, std::int64_t rows, std::int64_t positions) {
  const RandomStream random(3, static_cast<std::uint64_t>(first));
  nn::Batch batch;
  batch.ids = Tensor({rows, positions}, DType::int32);
  batch.targets = Tensor({rows, positions}, DType::int32);
  batch.first_row = first;
  for (std::int64_t i = 0; i < batch.ids.numel(); ++i) {
    const auto word = random.bits(static_cast<std::uint64_t>(i));
    batch.ids.as<std::int32_t>()[i] = static_cast<std::int32_t>(word % kVocabulary);
    batch.targets.as<std::int32_t>()[i] = static_cast<std::int32_t>(word / 64 % kVocabulary);
  }
  batch.targets.as<std::int32_t>()[0] = -100;
  return batch;
}

/// An engine and what its steps said.
struct Trial {
  Trial(Communicator& group, Device device, const Case& how, bool graph)
      : positions(how.positions), model(small_model(how)) {
    EngineOptions options;
    options.cuda_graph = graph;
    options.zero.device = device;
    options.zero.stage = how.stage;
    options.zero.dtype = how.dtype;
    options.zero.accumulation_steps = how.accumulation;
    options.zero.reduce_every_micro_batch = how.reduce_every_micro_batch;
    options.zero.rule.lr = 0.01;
    options.zero.gradient_clipping = 1.0;
    // The scale grows in every other step, so that it is not the same in all of them.
    if (how.dtype == DType::fp16)
      options.loss_scaler = optim::LossScalerOptions{.initial_scale_power = 8, .window = 2};
    engine = std::make_unique<Engine>(group, *model, options);
    parallel::initialize(*model, engine->optimizer(), 17);
  }

  void step(std::int64_t rows = 2) { step(rows, positions); }
  void step(std::int64_t rows, std::int64_t length) {
    const std::int64_t ranks = engine->group().size(), rank = engine->group().rank();
    std::vector<nn::Batch> micro;
    for (int j = 0; j < engine->optimizer().options().accumulation_steps; ++j)
      micro.push_back(make_batch(100 * engine->step() + (j * ranks + rank) * rows, rows, length));
    const StepOutcome outcome = engine->train_step(micro);
    said += fmt::format("{} {} {} {}\n", outcome.loss, outcome.gradient_norm, outcome.loss_scale,
                        outcome.skipped);
  }
  void steps(int count) {
    for (int i = 0; i < count; ++i) step();
  }
  std::string result() {
    return said + std::to_string(parallel::weights_checksum(*model, engine->optimizer()));
  }

  std::int64_t positions;
  std::unique_ptr<nn::Model> model;
  std::unique_ptr<Engine> engine;
  std::string said;
};

class RecordedPassTest : public ::testing::Test {
 protected:
  void SetUp() override { set_threads(1); }
  Communicator& world() { return runtime_.world(); }
  /// The same with and without graphs.
  void expect_same(const Case& how, const std::function<void(Trial&)>& train) {
    Trial plain(world(), gpu_, how, false), recorded(world(), gpu_, how, true);
    train(plain);
    train(recorded);
    EXPECT_EQ(recorded.result(), plain.result())
        << "stage " << how.stage << ", accumulation " << how.accumulation << ", "
        << to_string(how.dtype);
  }

  Runtime runtime_;
  const Device gpu_ = choose_device(runtime_, "cuda");
};

TEST_F(RecordedPassTest, ChangesNoBit) {
  for (const DType dtype : {DType::fp32, DType::bf16, DType::fp16})
    for (const int stage : {0, 1})
      for (const int accumulation : {1, 3})
        expect_same({.stage = stage, .accumulation = accumulation, .dtype = dtype},
                    [](Trial& trial) { trial.steps(4); });
}

TEST_F(RecordedPassTest, ChangesNoBitWithRecomputationAndOtherReductions) {
  for (const nn::Recompute recompute : {nn::Recompute::selective, nn::Recompute::full})
    expect_same({.dtype = DType::bf16, .recompute = recompute},
                [](Trial& trial) { trial.steps(3); });
  for (const int stage : {0, 1})
    expect_same({.stage = stage, .accumulation = 2, .reduce_every_micro_batch = true},
                [](Trial& trial) { trial.steps(3); });
}

TEST_F(RecordedPassTest, ChangesNoBitOfLlama) {
  for (const DType dtype : {DType::fp32, DType::bf16})
    for (const nn::Recompute recompute :
         {nn::Recompute::none, nn::Recompute::selective, nn::Recompute::full})
      expect_same(
          {.stage = 1, .accumulation = 2, .dtype = dtype, .recompute = recompute, .llama = true},
          [](Trial& trial) { trial.steps(3); });
}

// 64 positions without dropout are cuDNN's, where the build has it.
TEST_F(RecordedPassTest, ChangesNoBitOfOtherKernelsAttention) {
  expect_same({.dtype = DType::bf16, .positions = 64, .dropout = 0},
              [](Trial& trial) { trial.steps(3); });
}

TEST_F(RecordedPassTest, OtherShapesAreRecordedByThemselvesOrNotAtAll) {
  expect_same({.accumulation = 2}, [](Trial& trial) {
    trial.steps(3);
    trial.step(1);
    trial.step(2, 7);
    trial.steps(1);
    trial.step(1);
    trial.step(1);
    // More than are recorded.
    for (std::int64_t positions = 2; positions < 7; ++positions) trial.step(1, positions);
    trial.steps(1);
  });
}

TEST_F(RecordedPassTest, ContinuesFromACheckpoint) {
  std::optional<test::TemporaryFolder> mine;
  if (world().rank() == 0) mine.emplace();
  const std::string folder = world().broadcast_text(mine ? mine->path() : "", 0);
  const Case how{.stage = 1, .accumulation = 3, .dtype = DType::bf16};
  Trial whole(world(), gpu_, how, false);
  whole.steps(2);
  whole.said.clear();
  Trial recorded(world(), gpu_, how, true);
  recorded.steps(2);
  recorded.engine->save_checkpoint(folder, {.tag = "a"});
  Trial other(world(), gpu_, how, true);
  other.engine->load_checkpoint(folder, {.tag = "a"});
  // Weights that are loaded are not those that the graph was recorded with.
  recorded.steps(1);
  recorded.engine->load_checkpoint(folder, {.tag = "a"});
  recorded.said.clear();
  for (Trial* trial : {&whole, &recorded, &other}) trial->steps(3);
  EXPECT_EQ(recorded.result(), whole.result());
  EXPECT_EQ(other.result(), whole.result());
  world().barrier();
}

// What a pass needs stays where it is, and is counted.
TEST_F(RecordedPassTest, KeepsItsMemoryAndNoMore) {
  const MemoryLedger& ledger = memory_ledger(gpu_);
  for (const nn::Recompute recompute :
       {nn::Recompute::none, nn::Recompute::selective, nn::Recompute::full})
    for (const bool llama : {false, true}) {
      Trial trial(world(), gpu_,
                  {.accumulation = 2, .dtype = DType::bf16, .recompute = recompute, .llama = llama},
                  true);
      const std::int64_t before = ledger.current(Purpose::activations);
      trial.step();
      const std::int64_t kept = ledger.current(Purpose::activations) - before;
      const std::int64_t needed = trial.model->activation_bytes(2, kPositions);
      const std::int64_t most = needed + trial.model->recorded_bytes(2, kPositions);
      EXPECT_GT(kept, needed);
      if (recompute == nn::Recompute::full || llama)
        EXPECT_LE(kept, most) << llama;
      else
        EXPECT_EQ(kept, most);
      trial.steps(3);
      EXPECT_EQ(ledger.current(Purpose::activations) - before, kept);
      trial.engine.reset();
      EXPECT_EQ(ledger.current(Purpose::activations), before);
    }
}

TEST_F(RecordedPassTest, CountsTheWorkOfGraphs) {
  const auto flops = [&](bool graph) {
    Trial trial(world(), gpu_, {}, graph);
    trial.steps(2);
    const std::int64_t before = kernels::flop_count();
    trial.steps(1);
    return kernels::flop_count() - before;
  };
  EXPECT_EQ(flops(true), flops(false));
}

TEST_F(RecordedPassTest, IsRefusedWherePlacesChange) {
  for (const int stage : {2, 3})
    test::expect_error(Code::not_supported,
                       {"run.cuda_graph", fmt::format("stage {}", stage), "stage 0 or 1"},
                       [&] { Trial(world(), gpu_, {.stage = stage}, true); });
  test::expect_error(Code::not_supported, {"run.cuda_graph", "the CPU", "device: cuda"},
                     [&] { Trial(world(), Device{}, {}, true); });
}

}  // namespace
}  // namespace tessera::engine
