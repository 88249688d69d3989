// SPDX-License-Identifier: Apache-2.0
// Waits in training steps on GPUs: each one for a stream or an event is missed when it is missing,
// and in none does the host wait for what it has just started. Only the emulation can tell.
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

#include "device/cuda/wait_hook.hpp"
#include "support/missing_waits.hpp"
#include "support/tiny_model.hpp"

namespace tessera::engine {
namespace {

using test::TinyModel;

/// Steps ahead of their outcomes, with buckets so small that several are under way, and an
/// evaluation.
class Steps {
 public:
  Steps(Communicator& group, Device device, int stage, int micro_batches = 1)
      : model_(tiny_.model({})), micro_batches_(micro_batches) {
    EngineOptions options;
    options.zero.accumulation_steps = micro_batches;
    options.zero.device = device;
    options.zero.stage = stage;
    options.zero.rule.lr = 0.002;
    options.zero.gradient_clipping = 1.0;
    options.zero.reduce_bucket_size = 4096;
    engine_ = std::make_unique<Engine>(group, *model_, options);
    parallel::load_parameters(*model_, engine_->optimizer(), tiny_.weights());
  }
  void start() {
    const std::int64_t row = engine_->group().rank() % TinyModel::kRows;
    std::vector<nn::Batch> micro;
    for (int m = 0; m < micro_batches_; ++m)
      micro.push_back(tiny_.batch(static_cast<int>(engine_->step()), row, 1));
    engine_->start_step(micro);
  }
  void finish() {
    const StepOutcome outcome = engine_->finish_step();
    outcomes_ += fmt::format("{} {} ", outcome.loss, outcome.gradient_norm);
  }
  void run() {
    start();
    start();
    finish();
    finish();
    outcomes_ += fmt::format("{} ", evaluate());
  }
  std::string result() {
    return outcomes_ + std::to_string(parallel::weights_checksum(*model_, engine_->optimizer()));
  }

 private:
  double evaluate() {
    return parallel::evaluate(
               *model_, engine_->hooks(), engine_->group(), 4, TinyModel::kPositions, 2,
               [&](std::int64_t row, std::int32_t* inputs, std::int32_t* targets) {
                 const nn::Batch batch = tiny_.batch(0, row, 1);
                 std::copy_n(batch.ids.as<std::int32_t>(), TinyModel::kPositions, inputs);
                 std::copy_n(batch.targets.as<std::int32_t>(), TinyModel::kPositions, targets);
               },
               engine_->stream())
        .loss();
  }

  TinyModel tiny_;
  std::unique_ptr<nn::Model> model_;
  int micro_batches_;
  std::unique_ptr<Engine> engine_;
  std::string outcomes_;
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

/// The calls in which the host waits.
std::vector<std::string> host_waits(const emulation::SyncPoints& points) {
  std::vector<std::string> calls;
  for (const emulation::SyncPoint& point : points.seen())
    if (!point.in_kernel && point.kernel != "cudaStreamWaitEvent")
      calls.push_back(point.kernel + " in " + point.place.substr(0, point.place.find(".so")));
  std::ranges::sort(calls);
  return calls;
}

class HostWaits : public ::testing::TestWithParam<int> {};

TEST_P(HostWaits, AreForTheStepBeforeAndForEventsAlone) {
  set_threads(1);
  CommOptions options;
  options.device_transport = "nccl";
  Runtime runtime(options);
  const Device gpu = choose_device(runtime, "cuda");
  for (const int micro_batches : {1, 2}) {
    Steps steps(runtime.world(), gpu, GetParam(), micro_batches);
    steps.start();  // makes what is made at first use
    steps.start();
    steps.finish();
    // With the hook the host would poll where it waits, which nobody notes.
    cuda::set_wait_hook(nullptr);
    {
      const emulation::SyncPoints points;
      steps.start();
      EXPECT_EQ(host_waits(points), std::vector<std::string>{});
      steps.finish();
      EXPECT_EQ(host_waits(points),
                (std::vector<std::string>{"cudaEventSynchronize in libtessera_autograd",
                                          "cudaEventSynchronize in libtessera_zero"}));
    }
    steps.finish();
  }
}

INSTANTIATE_TEST_SUITE_P(Stages, HostWaits, ::testing::Values(0, 1, 2, 3));

}  // namespace
}  // namespace tessera::engine
