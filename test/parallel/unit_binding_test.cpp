// SPDX-License-Identifier: Apache-2.0
// What the tape tells while it computes moves messages on.
#include "tessera/parallel/unit_binding.hpp"

#include <atomic>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>
#include <mpi.h>

#include "tessera/base/timer.hpp"
#include "tessera/comm/runtime.hpp"
#include "tessera/parallel/pipeline_stages.hpp"

namespace tessera::parallel {
namespace {

/// A word that two processes of a node see, without MPI's help once it is there.
class SharedFlag {
 public:
  explicit SharedFlag(bool owner) {
    const MPI_Aint own = owner ? sizeof(std::atomic<int>) : 0;
    MPI_Win_allocate_shared(own, 1, MPI_INFO_NULL, MPI_COMM_WORLD, &flag_, &window_);
    MPI_Aint size = 0;
    int unit = 0;
    MPI_Win_shared_query(window_, 0, &size, &unit, &flag_);
    if (owner) new (flag_) std::atomic<int>(0);
    MPI_Barrier(MPI_COMM_WORLD);
  }
  ~SharedFlag() { MPI_Win_free(&window_); }
  void raise() { flag_->store(1); }
  bool raised() const { return flag_->load() != 0; }

 private:
  MPI_Win window_ = MPI_WIN_NULL;
  std::atomic<int>* flag_ = nullptr;
};

// Where the kernel copies for MPI (cross-memory attach) this holds without progress() too.
TEST(UnitBinding, ALongMessageArrivesWhileItsSenderComputes) {
  constexpr double kLong = 30;  // seconds
  Runtime runtime(MPI_COMM_WORLD);
  Communicator& line = runtime.world();
  SharedFlag arrived(line.rank() == 0);
  const auto model = nn::make_model(
      R"({"model_type": "gpt2", "n_layer": 2, "n_embd": 8, "n_head": 1, "n_positions": 8,
          "vocab_size": 16})",
      {});
  const PipelineShape shape =
      PipelineShape{PipelineKind::one_forward_one_backward, 2, 1, 0}.resolved();
  const TieGroups ties =
      take_stages(*model, line, shape, cut_layers(model->layers(), shape.stages(), {}));
  const auto alone = line.split(line.rank(), 0, "alone");
  zero::PartitionedOptimizer optimizer(*alone, {});
  UnitBinding binding(*model, optimizer);

  std::vector<float> numbers(1 << 20);
  if (line.rank() == 0) {
    std::iota(numbers.begin(), numbers.end(), 1.0f);
    Work sent = line.send(numbers.data(), std::ssize(numbers), DType::fp32, 1);
    const Timer timer;
    while (!arrived.raised() && timer.seconds() < kLong) binding.progress();
    EXPECT_TRUE(arrived.raised());
    sent.wait();
  } else {
    line.receive(numbers.data(), std::ssize(numbers), DType::fp32, 0).wait();
    arrived.raise();
    EXPECT_EQ(numbers.back(), static_cast<float>(numbers.size()));
  }
}

}  // namespace
}  // namespace tessera::parallel
