// SPDX-License-Identifier: Apache-2.0
// A GPU beside the CPU: curves, checkpoints that change place, memory, text.
#include <algorithm>
#include <map>
#include <utility>

#include <gtest/gtest.h>

#include "tessera/base/cpu_features.hpp"
#include "tessera/comm/runtime.hpp"
#include "tessera/engine/device_choice.hpp"
#include "tessera/engine/engine.hpp"
#include "tessera/kernels/attention.hpp"
#include "tessera/parallel/evaluation.hpp"
#include "tessera/parallel/model_state.hpp"

#include "support/temporary_folder.hpp"
#include "support/test_device.hpp"
#include "support/tiny_model.hpp"

namespace tessera::engine {
namespace {

using test::TinyModel;

/// An engine that trains gpt2-tiny with dropout off, a row a rank.
struct Trial {
  Trial(Communicator& group, Device device, DType dtype, int stage)
      : model(tiny.model({.dtype = dtype})) {
    EngineOptions options;
    options.zero.device = device;
    options.zero.stage = stage;
    options.zero.dtype = dtype;
    options.zero.rule.lr = 0.002;
    options.zero.gradient_clipping = 1.0;
    if (dtype == DType::fp16) options.loss_scaler = optim::LossScalerOptions{.static_scale = 1024};
    engine = std::make_unique<Engine>(group, *model, options);
    parallel::load_parameters(*model, engine->optimizer(), tiny.weights());
  }
  double step() {
    const std::int64_t row = engine->group().rank() % TinyModel::kRows;
    std::vector<nn::Batch> micro = {tiny.batch(engine->step(), row, 1)};
    return engine->train_step(micro).loss;
  }
  std::uint64_t checksum() { return parallel::weights_checksum(*model, engine->optimizer()); }

  TinyModel tiny;
  std::unique_ptr<nn::Model> model;
  std::unique_ptr<Engine> engine;
};

class DeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    set_threads(1);
    if (runtime_.rank() == 0) mine_ = std::make_unique<test::TemporaryFolder>();
    folder_ = world().broadcast_text(mine_ ? mine_->path() : "", 0);
  }
  void TearDown() override { world().barrier(); }
  Communicator& world() { return runtime_.world(); }

  const Device gpu_ = testing::test_device();
  Runtime runtime_;
  std::unique_ptr<test::TemporaryFolder> mine_;
  std::string folder_;
};

TEST_F(DeviceTest, IsFoundWhereItIsWanted) {
  EXPECT_TRUE(choose_device(runtime_, "cpu").is_cpu());
  EXPECT_EQ(choose_device(runtime_, "cuda"), gpu_);
  EXPECT_EQ(choose_device(runtime_, "auto"), gpu_);
  EXPECT_STRNE(world().device_transport(), "");
}

TEST_F(DeviceTest, FollowsTheCpusCurve) {
  const std::map<DType, double> tolerances = {
      {DType::fp32, 1e-4}, {DType::bf16, 2e-2}, {DType::fp16, 2e-3}};
  for (const auto& [dtype, tolerance] : tolerances) {
    Trial there(world(), gpu_, dtype, 2), here(world(), Device{}, dtype, 2);
    for (int i = 0; i < 4; ++i) EXPECT_NEAR(there.step(), here.step(), tolerance) << i;
  }
}

TEST_F(DeviceTest, FollowsTheCurveWithAttentionOfCudnn) {
  if (kernels::cudnn_version().empty()) GTEST_SKIP() << "this build has no cuDNN";
  struct Choice {
    Choice() { kernels::set_attention_kernels(kernels::AttentionKernels::cudnn); }
    ~Choice() { kernels::set_attention_kernels(kernels::AttentionKernels::automatic); }
  } const choice;
  for (const auto& [dtype, tolerance] : {std::pair{DType::bf16, 2e-2}, {DType::fp16, 2e-3}}) {
    Trial there(world(), gpu_, dtype, 2), again(world(), gpu_, dtype, 2);
    Trial here(world(), Device{}, dtype, 2);
    for (int i = 0; i < 4; ++i) {
      const double loss = there.step();
      EXPECT_EQ(loss, again.step());
      EXPECT_NEAR(loss, here.step(), tolerance) << i;
    }
    EXPECT_EQ(there.checksum(), again.checksum());
  }
}

// fp32 weights and states are the same bits on either side, and so is what evaluation makes of
// them up to the order of its sums.
TEST_F(DeviceTest, ContinuesWhatTheCpuSavedAndTheOtherWayRound) {
  for (const DType dtype : {DType::fp32, DType::bf16}) {
    Trial here(world(), Device{}, dtype, 1), there(world(), gpu_, dtype, 3);
    here.step();
    here.engine->save_checkpoint(folder_, {.tag = "cpu"});
    there.engine->load_checkpoint(folder_, {.tag = "cpu"});
    EXPECT_EQ(there.checksum(), here.checksum());
    there.step();
    there.engine->save_checkpoint(folder_, {.tag = "gpu"});
    here.engine->load_checkpoint(folder_, {.tag = "gpu"});
    EXPECT_EQ(there.checksum(), here.checksum());
    EXPECT_EQ(here.engine->step(), 2);
    EXPECT_NEAR(here.step(), there.step(), dtype == DType::fp32 ? 1e-4 : 2e-2);
  }
}

TEST_F(DeviceTest, SavesInTheBackgroundWhatWasThereAtTheTime) {
  Trial there(world(), gpu_, DType::bf16, 2);
  there.step();
  const std::uint64_t saved = there.checksum();
  there.engine->save_checkpoint(folder_, {.tag = "early", .asynchronous = true});
  there.step();
  EXPECT_EQ(there.engine->finish_save().value_or(SaveOutcome{}).error, "");
  EXPECT_NE(there.checksum(), saved);
  there.engine->load_checkpoint(folder_, {.tag = "early"});
  EXPECT_EQ(there.checksum(), saved);
}

TEST_F(DeviceTest, HoldsTheStateThatTheCpuWouldHold) {
  using Bytes = std::map<Purpose, std::int64_t>;
  const auto held = [&](Device device, int stage) {
    Bytes before, grown;
    const MemoryLedger& ledger = memory_ledger(device);
    const auto purposes = {Purpose::parameters, Purpose::gradients, Purpose::optimizer};
    for (const Purpose purpose : purposes) before[purpose] = ledger.current(purpose);
    Trial trial(world(), device, DType::bf16, stage);
    trial.step();
    for (const Purpose purpose : purposes)
      grown[purpose] = ledger.current(purpose) - before[purpose];
    return grown;
  };
  for (int stage = 0; stage <= 3; ++stage) EXPECT_EQ(held(gpu_, stage), held(Device{}, stage));
}

TEST_F(DeviceTest, EvaluatesLikeTheCpu) {
  const auto loss = [&](Device device) {
    Trial trial(world(), device, DType::fp32, 3);
    const auto result = parallel::evaluate(
        *trial.model, trial.engine->hooks(), world(), 4, TinyModel::kPositions, 2,
        [&](std::int64_t row, std::int32_t* inputs, std::int32_t* targets) {
          const nn::Batch batch = trial.tiny.batch(0, row, 1);
          std::copy_n(batch.ids.as<std::int32_t>(), TinyModel::kPositions, inputs);
          std::copy_n(batch.targets.as<std::int32_t>(), TinyModel::kPositions, targets);
        },
        trial.engine->stream());
    return result.loss();
  };
  EXPECT_NEAR(loss(gpu_), loss(Device{}), 1e-5);
}

}  // namespace
}  // namespace tessera::engine
