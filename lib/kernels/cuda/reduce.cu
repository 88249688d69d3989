// SPDX-License-Identifier: Apache-2.0
// Sums of squares, to the bit of their definition, and non-finite detection on a GPU.
#include <limits>

#include "kernels/cuda/group.cuh"
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/workspace.hpp"

namespace tessera::kernels::cuda {
namespace {

/// The lanes of the definition: threads here.
inline constexpr int kLanes = 8;
inline constexpr float kLargest = std::numeric_limits<float>::max();
inline constexpr int kBlocksAtOnce = kThreads / kLanes;

/// A thread adds one lane of one norm block; eight neighbours read whole sectors together. What is
/// read ahead hides the memory's latency, the order of additions stays.
template <typename T>
__global__ __launch_bounds__(kThreads) void block_square_sums_kernel(const T* x, std::int64_t count,
                                                                     double* sums) {
  constexpr int kAhead = 8;
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const std::int64_t block = static_cast<std::int64_t>(blockIdx.x) * kBlocksAtOnce +
                             static_cast<int>(threadIdx.x) / kLanes;
  const std::int64_t begin = block * kNormBlock;
  const std::int64_t end = begin + kNormBlock < count ? begin + kNormBlock : count;
  double sum = 0;
  for (std::int64_t i = begin + lane; i < end; i += kAhead * kLanes) {
    float values[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      const std::int64_t at = i + k * kLanes;
      values[k] = at < end ? to_float(x[at]) : 0.0f;
    }
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      // The square is exact in fp64: one rounding, in the addition.
      const auto value = static_cast<double>(values[k]);
      sum = fma(value, value, sum);
    }
  }
  double total = sum;
#pragma unroll
  for (int k = 1; k < kLanes; ++k) {
    const double next = __shfl_down_sync(kWholeWarp, sum, static_cast<unsigned>(k));
    total += next;
  }
  if (lane == 0 && begin < count) sums[block] = total;
}

/// Keeps the smallest index as the largest complement: memory that begins as zero means none.
/// Maxima of integers do not depend on the order.
template <typename T>
struct FindNonFinite {
  static constexpr int kWidth = kPackWidth<T>;
  const T* x;
  unsigned long long* found;

  template <int N>
  __device__ void operator()(std::int64_t i, Width<N>) const {
    const auto pack = load<N>(x + i);
    int first = -1;
#pragma unroll
    for (int k = N - 1; k >= 0; --k)
      if (!(fabsf(pack[k]) <= kLargest)) first = k;
    if (first >= 0) atomicMax(found, ~static_cast<unsigned long long>(i + first));
  }
};

}  // namespace

void block_square_sums(const Stream& stream, const void* x, DType dtype, std::int64_t count,
                       double* sums) {
  dispatch_type(dtype, "block_square_sums", [&]<typename T>(T) {
    tessera::cuda::launch<block_square_sums_kernel<T>>(
        stream, dim3(blocks_for(count, kNormBlock * kBlocksAtOnce)), dim3(kThreads), 0,
        static_cast<const T*>(x), count, sums);
  });
}

std::int64_t first_non_finite(const Stream& stream, const void* x, DType dtype,
                              std::int64_t count) {
  if (count == 0) return -1;
  const Buffer memory = allocate_workspace(stream, sizeof(unsigned long long));
  auto* found = memory.as<unsigned long long>();
  stream.fill_zero(found, sizeof(*found));
  dispatch_type(dtype, "first_non_finite", [&]<typename T>(T) {
    const FindNonFinite<T> op{static_cast<const T*>(x), found};
    launch_elementwise(stream, op, count, is_aligned<op.kWidth>(op.x));
  });
  unsigned long long complement = 0;
  stream.copy(&complement, found, sizeof(complement));
  stream.synchronize();
  return complement == 0 ? -1 : static_cast<std::int64_t>(~complement);
}

}  // namespace tessera::kernels::cuda
