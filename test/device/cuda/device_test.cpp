// SPDX-License-Identifier: Apache-2.0
// Which GPU a rank takes, and errors of CUDA calls.
#include <cuda_runtime_api.h>

#include "tessera/device/cuda.hpp"

#include "device/cuda/check.hpp"
#include "support/cuda_testing.hpp"
#include "support/expect_error.hpp"

namespace tessera {
namespace {

TEST(CudaDevices, ARankTakesItsNumberModuloTheDevices) {
  TESSERA_NEEDS_GPU();
  const int count = cuda_device_count();
  for (int rank = 0; rank < 2 * count + 1; ++rank)
    EXPECT_EQ(choose_cuda_device(rank, 2 * count + 1).index, rank % count);
  EXPECT_FALSE(choose_cuda_device(0, 1).is_cpu());
  test::expect_error(Code::invalid_argument, {"2"}, [] { choose_cuda_device(2, 2); });
}

TEST(CudaDevices, AreDescribed) {
  TESSERA_NEEDS_GPU();
  const CudaDeviceInfo info = describe_cuda_device(test::gpu());
  EXPECT_FALSE(info.name.empty());
  EXPECT_EQ(info.identity.rfind("GPU-", 0), 0u) << info.identity;
  EXPECT_GT(info.total_memory, 0);
  EXPECT_LE(info.free_memory, info.total_memory);
  EXPECT_NE(cuda_build_version().find('.'), std::string::npos);
}

TEST(CudaDevices, OneThatIsNotThereIsRefused) {
  TESSERA_NEEDS_GPU();
  const Device none{DeviceType::cuda, cuda_device_count()};
  test::expect_error(Code::invalid_argument, {none.to_string()}, [&] { make_stream(none); });
  test::expect_error(Code::invalid_argument, {none.to_string()},
                     [&] { describe_cuda_device(none); });
}

TEST(CudaCheck, NamesTheErrorAndWhatWasDone) {
  cuda::check_cuda(cudaSuccess, "nothing");
  test::expect_error(Code::cuda, {"painting a wall", "cudaErrorInvalidValue"},
                     [] { cuda::check_cuda(cudaErrorInvalidValue, "painting a wall"); });
  test::expect_error(Code::out_of_memory, {"cudaErrorMemoryAllocation"},
                     [] { cuda::check_cuda(cudaErrorMemoryAllocation, "allocating"); });
}

}  // namespace
}  // namespace tessera
