// SPDX-License-Identifier: Apache-2.0
// Largest element and sum of exponentials of a row that a block shares: one walk over the row.
#pragma once

#include <cstdint>

#include "kernels/cuda/group.cuh"

namespace tessera::kernels::cuda {

/// The sum is that of exp(x - largest).
struct RowExp {
  float largest, sum;
};

/// What a thread has seen so far. The sum is scaled down whenever a larger element comes.
class RunningExp {
 public:
  /// Adds elements i, i + 1, … of a pack; those from `columns` on do not count. A NaN shows in the
  /// sum.
  template <typename Index, typename T, int N>
  __device__ __forceinline__ void add(Index i, const Pack<T, N>& pack, std::int64_t columns) {
    float values[N], largest = largest_;
#pragma unroll
    for (int k = 0; k < N; ++k) {
      values[k] = i + k < columns ? pack[k] : -INFINITY;
      largest = fmaxf(largest, values[k]);
    }
    const float shift = finite(largest);
    sum_ *= expf(largest_ - shift);
#pragma unroll
    for (int k = 0; k < N; ++k) sum_ += expf(values[k] - shift);
    largest_ = largest;
  }
  template <int kBlock>
  __device__ __forceinline__ RowExp over_block(WarpSlots (&slots)[2]) const {
    const float largest = group_max<kBlock>(largest_, slots[0]);
    const float part = sum_ * expf(largest_ - finite(largest));
    return {largest, group_sum<kBlock>(part, slots[1])};
  }

 private:
  /// exp(-inf - -inf) would be NaN.
  static __device__ __forceinline__ float finite(float largest) {
    return largest == -INFINITY ? 0.0f : largest;
  }

  float largest_ = -INFINITY, sum_ = 0;
};

/// Calls start<N, kBlock, kPacks>() for rows of `columns` elements of T: held in registers by 256
/// or 1024 threads, or read twice.
template <typename T, typename Start>
void dispatch_row(std::int64_t columns, bool aligned, Start&& start) {
  constexpr int kWide = kPackWidth<T>;
  const auto fits = [&](int threads, int packs) {
    return columns <= std::int64_t{threads} * packs * kWide;
  };
  if (columns % kWide != 0 || !aligned) {
    if (columns <= 4096) return start.template operator()<1, 256, 0>();
    return start.template operator()<1, 1024, 0>();
  }
  if (fits(256, 2)) return start.template operator()<kWide, 256, 2>();
  if (fits(1024, 7)) return start.template operator()<kWide, 1024, 7>();
  start.template operator()<kWide, 1024, 0>();
}

}  // namespace tessera::kernels::cuda
