// SPDX-License-Identifier: Apache-2.0
// The checkpoint test/data/checkpoints/v1.h5, of format version 1, which every later version must
// read. `train_golden` below made it, with
//   TESSERA_GOLDEN_OUTPUT=v1.h5 scripts/mpirun -n 3 build/test/engine/test_engine_golden
// Never make it again: a newer format gets a file of its own beside it.
#include <cstdlib>
#include <filesystem>
#include <memory>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tessera/base/cpu_features.hpp"
#include "tessera/checkpoint/checksum.hpp"
#include "tessera/checkpoint/reader.hpp"
#include "tessera/comm/runtime.hpp"
#include "tessera/engine/engine.hpp"
#include "tessera/parallel/model_state.hpp"

#include "support/temporary_folder.hpp"

namespace tessera::test {
namespace {

constexpr const char* kGolden = TESSERA_TEST_DATA "/checkpoints/v1.h5";
constexpr const char* kModel =
    R"({"model_type": "gpt2", "n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 16,
        "vocab_size": 61, "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0})";
constexpr const char* kConfig = "run:\n  steps: 5 # made for test/data, not by a run: \xc3\xa9\n";
constexpr const char* kClient = R"({"experiment":"golden","list":[1,2.5,null]})";
constexpr std::int64_t kRows = 12, kPositions = 16, kVocabulary = 61;
constexpr int kSteps = 3;

engine::EngineOptions golden_options(int stage) {
  engine::EngineOptions options;
  options.zero.stage = stage;
  options.zero.rule.lr = 0.01;
  options.groups.weight_decay = 0.1;
  options.zero.gradient_clipping = 1.0;
  options.seed = 42;
  return options;
}

// The rows of one rank; every value follows from row, position and step.
nn::Batch golden_batch(std::int64_t step, int rank, int ranks) {
  const auto id = [&](std::int64_t row, std::int64_t t) {
    return static_cast<std::int32_t>((7 * row + 3 * t * t + 11 * step) % kVocabulary);
  };
  nn::Batch batch;
  const std::int64_t rows = kRows / ranks;
  batch.first_row = rank * rows;
  batch.ids = Tensor({rows, kPositions}, DType::int32);
  batch.targets = Tensor({rows, kPositions}, DType::int32);
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t t = 0; t < kPositions; ++t) {
      batch.ids.as<std::int32_t>()[r * kPositions + t] = id(batch.first_row + r, t);
      batch.targets.as<std::int32_t>()[r * kPositions + t] =
          t + 1 < kPositions ? id(batch.first_row + r, t + 1) : -1;
    }
  return batch;
}

// A model and its engine on all ranks.
struct Trial {
  explicit Trial(int stage)
      : model(nn::make_model(kModel, {})), engine(runtime.world(), *model, golden_options(stage)) {}

  double train_step() {
    std::vector<nn::Batch> batches = {golden_batch(engine.step(), runtime.rank(), runtime.size())};
    return engine.train_step(batches).loss;
  }
  std::uint64_t checksum() { return parallel::weights_checksum(*model, engine.optimizer()); }

  Runtime runtime;
  std::unique_ptr<nn::Model> model;
  engine::Engine engine;
};

void train_golden(Trial& trial, const std::string& path) {
  parallel::initialize(*trial.model, trial.engine.optimizer(), 42);
  for (int i = 0; i < kSteps; ++i) trial.train_step();
  const engine::Engine& done = trial.engine;
  checkpoint::save(trial.runtime.world(), path,
                   {done.step(), done.samples(), done.tokens(), kModel, kConfig},
                   parallel::records(*trial.model, trial.engine.optimizer()),
                   {{"engine", R"({"updates":3,"seed":42,"ranks":3})"},
                    {"schedule", R"({"type":"","updates":3})"},
                    {"client_state", kClient}});
}

class GoldenCheckpointTest : public ::testing::Test {
 protected:
  void SetUp() override { set_threads(1); }

  static std::vector<float> values(const checkpoint::Reader& reader, const std::string& path,
                                   std::int64_t begin, std::size_t count) {
    std::vector<float> found(count);
    reader.read(path, begin, static_cast<std::int64_t>(count), DType::fp32, found.data());
    return found;
  }
  static void expect_values(const std::string& path, std::int64_t begin,
                            const std::vector<float>& expected) {
    EXPECT_EQ(values(checkpoint::Reader(kGolden), path, begin, expected.size()), expected) << path;
  }
};

// Where the recipe writes: a folder that goes away, or where somebody makes the file to keep.
std::string new_file(Runtime& runtime, const TemporaryFolder& folder) {
  const char* kept = std::getenv("TESSERA_GOLDEN_OUTPUT");
  return runtime.world().broadcast_text(kept != nullptr ? kept : folder / "new.h5", 0);
}

// What is written today has the same tensors.
TEST_F(GoldenCheckpointTest, TheRecipeStillMakesIt) {
  const TemporaryFolder folder;
  Trial trial(3);
  const std::string path = new_file(trial.runtime, folder);
  train_golden(trial, path);
  const checkpoint::Reader made(path), golden(kGolden);
  ASSERT_EQ(made.datasets().size(), golden.datasets().size());
  for (std::size_t i = 0; i < golden.datasets().size(); ++i) {
    const checkpoint::DatasetInfo& info = golden.datasets()[i];
    EXPECT_EQ(made.datasets()[i].path, info.path);
    EXPECT_EQ(made.datasets()[i].shape, info.shape) << info.path;
    EXPECT_EQ(made.datasets()[i].dtype, info.dtype) << info.path;
    // Means of gradients; Adam makes whole steps of the rounding of those that should be zero.
    if (!info.path.starts_with("optimizer/exp_avg/")) continue;
    const auto count = static_cast<std::size_t>(info.shape.numel());
    const auto found = values(made, info.path, 0, count);
    const auto expected = values(golden, info.path, 0, count);
    for (std::size_t j = 0; j < count; ++j)
      EXPECT_NEAR(found[j], expected[j], 1e-4) << info.path << ' ' << j;
  }
  trial.runtime.world().barrier();  // nobody's folder goes away before
}

TEST_F(GoldenCheckpointTest, HeaderAndStatesAreRead) {
  const checkpoint::Reader reader(kGolden);
  EXPECT_EQ(reader.format_version(), 1);
  EXPECT_EQ(reader.library_version(), "0.1.0");
  EXPECT_EQ(reader.header().step, 3);
  EXPECT_EQ(reader.header().samples, 36);
  EXPECT_EQ(reader.header().tokens, 540);
  EXPECT_EQ(reader.header().model, kModel);
  EXPECT_EQ(reader.header().config, kConfig);
  EXPECT_EQ(reader.state().size(), 3u);
  EXPECT_EQ(reader.state().at("client_state"), kClient);
  EXPECT_EQ(reader.state().at("engine"), R"({"updates":3,"seed":42,"ranks":3})");
}

TEST_F(GoldenCheckpointTest, TensorsAndChecksumsAreRead) {
  const checkpoint::Reader reader(kGolden);
  EXPECT_EQ(reader.datasets().size(), 84u);
  EXPECT_TRUE(reader.verify().empty());
  EXPECT_EQ(checkpoint::format_checksum(reader.weights_checksum()), "8a3867bd8ad80f04");
  expect_values("parameters/transformer.wte.weight", 0,
                {-0.0186303575F, 0.00925739575F, -0.0239977166F, -0.0131061235F});
  expect_values("parameters/transformer.h.1.mlp.c_fc.weight", 1021,
                {0.0522682816F, 0.00154461968F, 0.0127097694F});
  expect_values("optimizer/exp_avg/transformer.wpe.weight", 17,
                {-6.69325455e-05F, -0.00100004615F, -0.0013855258F});
  expect_values("optimizer/exp_avg_sq/transformer.ln_f.weight", 0,
                {1.08919762e-08F, 1.0168268e-08F});
}

TEST_F(GoldenCheckpointTest, TrainingContinuesFromItInEveryStage) {
  for (const int stage : {0, 1, 2, 3}) {
    Trial trial(stage);
    const checkpoint::Reader reader(kGolden);
    trial.engine.load(reader);
    EXPECT_EQ(trial.engine.step(), 3);
    EXPECT_EQ(trial.checksum(), reader.weights_checksum());
    EXPECT_NEAR(trial.train_step(), 4.12299, 1e-4);
  }
}

}  // namespace
}  // namespace tessera::test
