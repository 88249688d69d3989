// SPDX-License-Identifier: Apache-2.0
// What a rank sees while its GPU waits for a peer that failed, and when NCCL reports an error.
#include <mpi.h>

#include "tessera/base/error.hpp"
#include "tessera/base/timer.hpp"
#include "tessera/comm/runtime.hpp"

#include "support/cuda_testing.hpp"
#include "support/expect_error.hpp"
#ifdef TESSERA_TEST_EMULATED_NCCL
#include "emulation/nccl.hpp"
#endif

namespace tessera {
namespace {

using test::on_device;

int ranks() {
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

Device gpu_of(Runtime& runtime) {
  return choose_cuda_device(runtime.local_rank(), runtime.local_size());
}

CommOptions nccl(double timeout) {
  CommOptions options;
  options.device_transport = "nccl";
  options.timeout_seconds = timeout;
  return options;
}

TEST(DeviceFailure, AnOperationThatAPeerDoesNotCallTimesOut) {
  TESSERA_NEEDS_GPU();
  if (!test::nccl_reaches(ranks())) GTEST_SKIP() << "NCCL wants a GPU for each rank";
  {
    Runtime runtime(nccl(0.5));
    Communicator& world = runtime.world();
    const Stream stream = make_stream(gpu_of(runtime));
    const Buffer data = on_device(stream, std::vector<float>(100));
    world.open_device(gpu_of(runtime));
    world.barrier();
    if (world.rank() == 0) {
      const Timer timer;
      world.all_reduce(data.data(), 100, DType::fp32, Reduction::sum, stream).wait();
      test::expect_error(Code::timeout,
                         {"rank 0", "all_reduce (sum) of 100 fp32", "world", "timeout_seconds"},
                         [&] { stream.synchronize(); });
      EXPECT_LT(timer.seconds(), 10);
      stream.synchronize();  // aborted: the kernel is gone, and the GPU usable
      test::expect_error(Code::peer_failed, {"failed before"}, [&] {
        world.all_reduce(data.data(), 100, DType::fp32, Reduction::sum, stream);
      });
    }
    MPI_Barrier(MPI_COMM_WORLD);
  }
  MPI_Barrier(MPI_COMM_WORLD);
}

TEST(DeviceFailure, AFailedPeerEndsTheWaitForTheGpu) {
  TESSERA_NEEDS_GPU();
  if (!test::nccl_reaches(ranks())) GTEST_SKIP() << "NCCL wants a GPU for each rank";
  try {
    Runtime runtime(nccl(60));
    Communicator& world = runtime.world();
    const Stream stream = make_stream(gpu_of(runtime));
    const Buffer data = on_device(stream, std::vector<float>(100));
    world.open_device(gpu_of(runtime));
    world.barrier();
    // The last rank leaves its Runtime by an exception that the others do not have.
    if (world.rank() == world.size() - 1) throw Error(Code::io, "only here");
    const Timer timer;
    world.all_reduce(data.data(), 100, DType::fp32, Reduction::sum, stream).wait();
    test::expect_error(Code::peer_failed, {"rank " + std::to_string(world.size() - 1)},
                       [&] { stream.synchronize(); });
    EXPECT_LT(timer.seconds(), 30);
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "only here");
  }
  MPI_Barrier(MPI_COMM_WORLD);
}

#ifdef TESSERA_TEST_EMULATED_NCCL
TEST(DeviceFailure, AnErrorOfNcclNamesRankAndOperation) {
  TESSERA_NEEDS_GPU();
  if (!test::nccl_reaches(ranks())) GTEST_SKIP() << "NCCL wants a GPU for each rank";
  const int before = emulation::open_nccl_communicators();
  {
    Runtime runtime(nccl(60));
    Communicator& world = runtime.world();
    const Stream stream = make_stream(gpu_of(runtime));
    const Buffer data = on_device(stream, std::vector<float>(100));
    Work work = world.all_reduce(data.data(), 100, DType::fp32, Reduction::sum, stream);
    EXPECT_EQ(emulation::open_nccl_communicators(), before + 1);
    MPI_Barrier(MPI_COMM_WORLD);
    emulation::set_nccl_async_error(ncclRemoteError);
    test::expect_error(Code::nccl,
                       {"rank " + std::to_string(world.rank()), "all_reduce (sum) of 100 fp32",
                        "world", "network"},
                       [&] { work.wait(); });
    emulation::set_nccl_async_error(ncclSuccess);
    EXPECT_EQ(emulation::open_nccl_communicators(), before) << "aborted";
    MPI_Barrier(MPI_COMM_WORLD);
  }
  MPI_Barrier(MPI_COMM_WORLD);
}

TEST(DeviceLife, NothingOfNcclIsLeft) {
  TESSERA_NEEDS_GPU();
  if (!test::nccl_reaches(ranks())) GTEST_SKIP() << "NCCL wants a GPU for each rank";
  const int before = emulation::open_nccl_communicators();
  for (int round = 0; round < 2; ++round) {
    Runtime runtime(nccl(60));
    Communicator& world = runtime.world();
    world.open_device(gpu_of(runtime));
    const auto half = world.split(world.rank() % 2, 0, "half");
    const auto whole = world.split(0, -world.rank(), "whole");
    const Stream stream = make_stream(gpu_of(runtime));
    const Buffer data = on_device(stream, std::vector<float>(100));
    whole->all_reduce(data.data(), 100, DType::fp32, Reduction::sum, stream);  // never waited for
    runtime.finalize();
    EXPECT_EQ(emulation::open_nccl_communicators(), before);
  }
}
#endif

}  // namespace
}  // namespace tessera
