// SPDX-License-Identifier: Apache-2.0
// Each wait for a stream or an event in training steps on GPUs is missed when it is missing. Only
// the emulation can leave one out.
#include <algorithm>
#include <memory>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tessera/base/cpu_features.hpp"
#include "tessera/comm/runtime.hpp"
#include "tessera/engine/device_choice.hpp"
#include "tessera/engine/engine.hpp"
#include "tessera/parallel/evaluation.hpp"
#include "tessera/parallel/model_state.hpp"

#include "support/gpt2_tiny.hpp"
#include "support/missing_waits.hpp"

namespace tessera::engine {
namespace {

using test::Gpt2Tiny;

/// Two steps, with buckets so small that several are under way, and an evaluation.
class Steps {
 public:
  Steps(Communicator& group, Device device, int stage) : model_(tiny_.model({})) {
    EngineOptions options;
    options.zero.device = device;
    options.zero.stage = stage;
    options.zero.rule.lr = 0.002;
    options.zero.gradient_clipping = 1.0;
    options.zero.reduce_bucket_size = 4096;
    engine_ = std::make_unique<Engine>(group, *model_, options);
    parallel::load_parameters(*model_, engine_->optimizer(), tiny_.weights());
  }
  void run() {
    for (int step = 0; step < 2; ++step) {
      const std::int64_t row = engine_->group().rank() % Gpt2Tiny::kRows;
      std::vector<nn::Batch> micro = {tiny_.batch(step, row, 1)};
      losses_ += fmt::format("{} ", engine_->train_step(micro).loss);
    }
    losses_ += fmt::format("{} ", evaluate());
  }
  std::string result() {
    return losses_ + std::to_string(parallel::weights_checksum(*model_, engine_->optimizer()));
  }

 private:
  double evaluate() {
    return parallel::evaluate(
               *model_, engine_->hooks(), engine_->group(), 4, Gpt2Tiny::kPositions, 2,
               [&](std::int64_t row, std::int32_t* inputs, std::int32_t* targets) {
                 const nn::Batch batch = tiny_.batch(0, row, 1);
                 std::copy_n(batch.ids.as<std::int32_t>(), Gpt2Tiny::kPositions, inputs);
                 std::copy_n(batch.targets.as<std::int32_t>(), Gpt2Tiny::kPositions, targets);
               },
               engine_->stream())
        .loss();
  }

  Gpt2Tiny tiny_;
  std::unique_ptr<nn::Model> model_;
  std::unique_ptr<Engine> engine_;
  std::string losses_;
};

/// Between ranks through NCCL: the MPI transport blocks the host, which hides most of a step's own
/// waits.
class StepWaits : public ::testing::TestWithParam<int> {};

TEST_P(StepWaits, AreAllNeeded) {
  set_threads(1);
  CommOptions options;
  options.device_transport = "nccl";
  Runtime runtime(options);
  if (runtime.size() == 1 && GetParam() > 0) GTEST_SKIP() << "stages differ between ranks only";
  const Device gpu = choose_device(runtime, "cuda");
  test::MissingWaits waits(runtime.world(), 40, [&] {
    return std::make_unique<Steps>(runtime.world(), gpu, GetParam());
  });
  EXPECT_FALSE(waits.depends_on_the_order());
  const auto all = waits.all();
  EXPECT_GE(all.size(), 2u);
  for (const std::string& wait : all)
    EXPECT_TRUE(waits.is_missed(wait)) << "nobody misses " << wait;
}

INSTANTIATE_TEST_SUITE_P(Stages, StepWaits, ::testing::Values(0, 3));

}  // namespace
}  // namespace tessera::engine
