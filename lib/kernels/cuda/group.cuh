// SPDX-License-Identifier: Apache-2.0
// Groups of threads that share a row: how they hold it, and how they add up. Every sum has one
// order.
#pragma once

#include <cstdint>

#include "kernels/cuda/pack.cuh"

namespace tessera::kernels::cuda {

inline constexpr unsigned kWholeWarp = 0xffffffffu;

/// All lanes get the same bits: each step adds the same two numbers on both sides.
template <typename T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2)
    value += __shfl_xor_sync(kWholeWarp, value, distance);
  return value;
}

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2)
    value = fmaxf(value, __shfl_xor_sync(kWholeWarp, value, distance));
  return value;
}

/// One number from each warp of a block of up to 1024 threads. Writing it again needs a barrier
/// after the last read.
struct WarpSlots {
  float values[32];
};

/// Combines over `kGroup` neighbouring threads, a multiple of 32; all threads of the block take
/// part.
template <int kGroup, typename Combine>
__device__ __forceinline__ float combine_warps(float value, WarpSlots& slots, Combine&& combine) {
  if constexpr (kGroup == 32) {
    return value;
  } else {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    if (threadIdx.x % 32 == 0) slots.values[warp] = value;
    __syncthreads();
    const int first = warp / (kGroup / 32) * (kGroup / 32);
    float total = slots.values[first];
#pragma unroll
    for (int i = 1; i < kGroup / 32; ++i) total = combine(total, slots.values[first + i]);
    return total;
  }
}

template <int kGroup>
__device__ __forceinline__ float group_sum(float value, WarpSlots& slots) {
  return combine_warps<kGroup>(warp_sum(value), slots, [](float a, float b) { return a + b; });
}

template <int kGroup>
__device__ __forceinline__ float group_max(float value, WarpSlots& slots) {
  return combine_warps<kGroup>(warp_max(value), slots,
                               [](float a, float b) { return fmaxf(a, b); });
}

/// Two sums at the price of one barrier.
template <int kGroup>
__device__ __forceinline__ float2 group_sums(float a, float b, WarpSlots (&slots)[2]) {
  a = warp_sum(a);
  b = warp_sum(b);
  if constexpr (kGroup == 32) {
    return make_float2(a, b);
  } else {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    if (threadIdx.x % 32 == 0) {
      slots[0].values[warp] = a;
      slots[1].values[warp] = b;
    }
    __syncthreads();
    const int first = warp / (kGroup / 32) * (kGroup / 32);
    float2 total = make_float2(0, 0);
#pragma unroll
    for (int i = 0; i < kGroup / 32; ++i) {
      total.x += slots[0].values[first + i];
      total.y += slots[1].values[first + i];
    }
    return total;
  }
}

/// Where pack p of a row lies that thread `lane` of a group holds: neighbours next to each other.
template <int N, int kGroup>
__device__ __forceinline__ int pack_position(int p, int lane) {
  return (p * kGroup + lane) * N;
}

/// N elements as the words that a load gave, unpacked at each use: compilers would rather unpack
/// 16-bit elements once, and keep twice the registers.
template <typename T, int N>
class HeldPack {
 public:
  __device__ __forceinline__ void read(const T* p) {
    const auto pack = load<N>(p);
    memcpy(words_, static_cast<const void*>(&pack), sizeof(words_));
  }
  __device__ __forceinline__ Pack<T, N> get() const {
    unsigned words[kWords];
    Pack<T, N> pack;
#pragma unroll
    for (int k = 0; k < kWords; ++k) {
      words[k] = words_[k];
      if constexpr (sizeof(T) < sizeof(unsigned)) asm volatile("" : "+r"(words[k]));
    }
    memcpy(static_cast<void*>(&pack), words, sizeof(words));
    return pack;
  }

 private:
  static constexpr int kWords = static_cast<int>(N * sizeof(T) / sizeof(unsigned));
  unsigned words_[kWords];
};

/// A row of up to kGroup * kPacks * N elements, read once and kept in registers as it was stored.
/// A row of 0 columns is read from nowhere.
template <typename T, int N, int kGroup, int kPacks>
class HeldRow {
 public:
  __device__ __forceinline__ HeldRow(const T* row, std::int64_t columns, int lane)
      : columns_(static_cast<int>(columns)), lane_(lane) {
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int i = pack_position<N, kGroup>(p, lane);
      if (i < columns_) packs_[p].read(row + i);
    }
  }
  /// body(i, pack) for the packs of this thread.
  template <typename Body>
  __device__ __forceinline__ void for_each(Body&& body) const {
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int i = pack_position<N, kGroup>(p, lane_);
      if (i < columns_) body(i, packs_[p].get());
    }
  }
  /// body(p, i, pack, other's pack) for two rows that lie alike.
  template <typename Body>
  __device__ __forceinline__ void for_each_with(const HeldRow& other, Body&& body) const {
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int i = pack_position<N, kGroup>(p, lane_);
      if (i < columns_) body(p, i, packs_[p].get(), other.packs_[p].get());
    }
  }

 private:
  HeldPack<T, N> packs_[kPacks];
  int columns_;
  int lane_;
};

/// The same for rows of any length, read again on each walk (kPacks = 0).
template <typename T, int N, int kGroup>
class HeldRow<T, N, kGroup, 0> {
 public:
  __device__ __forceinline__ HeldRow(const T* row, std::int64_t columns, int lane)
      : row_(row), columns_(columns), lane_(lane) {}
  template <typename Body>
  __device__ __forceinline__ void for_each(Body&& body) const {
    for (std::int64_t i = static_cast<std::int64_t>(lane_) * N; i < columns_;
         i += static_cast<std::int64_t>(kGroup) * N)
      body(i, load<N>(row_ + i));
  }

 private:
  const T* row_;
  std::int64_t columns_;
  int lane_;
};

}  // namespace tessera::kernels::cuda
