// SPDX-License-Identifier: Apache-2.0
// The kinds of parameters that update rules load and store: plain fp32, fp32 with a rounded
// copy, and split into a bf16 weight and the 16 bits that rounding took away
// (kernels/split_master.hpp).
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/cuda/pack.cuh"

namespace tessera::kernels::cuda {

/// The fp32 number whose halves these are. Where rounding had gone up, one comes off again; the
/// shift drops what wraps around.
__device__ __forceinline__ float join_halves(std::uint16_t high, std::uint16_t low) {
  const std::uint32_t top = std::uint32_t{high} - (std::uint32_t{low} >> 15);
  const std::uint32_t bits = top << 16 | low;
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

struct Halves {
  std::uint16_t high, low;
};
__device__ __forceinline__ Halves split_halves(float value) {
  std::uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return {static_cast<std::uint16_t>((bits + 0x8000u) >> 16), static_cast<std::uint16_t>(bits)};
}

/// N fp32 numbers in registers.
template <int N>
struct Floats {
  float values[N];
};

struct PlainMaster {
  float* value;

  template <int N>
  bool is_wide() const {
    return is_aligned<N>(value);
  }
  template <int N>
  __device__ __forceinline__ Floats<N> get(std::int64_t i) const {
    const auto pack = load<N>(value + i);
    Floats<N> result;
#pragma unroll
    for (int k = 0; k < N; ++k) result.values[k] = pack[k];
    return result;
  }
  template <int N>
  __device__ __forceinline__ void set(std::int64_t i, const Floats<N>& master) const {
    Pack<float, N> pack;
#pragma unroll
    for (int k = 0; k < N; ++k) pack.values[k] = master.values[k];
    store(value + i, pack);
  }
};

/// fp32 with a copy in fp16, rounded to nearest even.
struct RoundedMaster {
  float* value;
  __half* rounded;

  template <int N>
  bool is_wide() const {
    return all_aligned<N>(value) && all_aligned<N>(rounded);
  }
  template <int N>
  __device__ __forceinline__ Floats<N> get(std::int64_t i) const {
    return PlainMaster{value}.get<N>(i);
  }
  template <int N>
  __device__ __forceinline__ void set(std::int64_t i, const Floats<N>& master) const {
    PlainMaster{value}.set(i, master);
    Pack<__half, N> copy;
#pragma unroll
    for (int k = 0; k < N; ++k) copy.values[k] = round_to<__half>(master.values[k]);
    store(rounded + i, copy);
  }
};

struct SplitMaster {
  std::uint16_t* high;
  std::uint16_t* low;

  template <int N>
  bool is_wide() const {
    return all_aligned<N>(high, low);
  }
  template <int N>
  __device__ __forceinline__ Floats<N> get(std::int64_t i) const {
    const auto tops = load<N>(high + i), rests = load<N>(low + i);
    Floats<N> result;
#pragma unroll
    for (int k = 0; k < N; ++k) result.values[k] = join_halves(tops.values[k], rests.values[k]);
    return result;
  }
  template <int N>
  __device__ __forceinline__ void set(std::int64_t i, const Floats<N>& master) const {
    Pack<std::uint16_t, N> tops, rests;
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const Halves halves = split_halves(master.values[k]);
      tops.values[k] = halves.high;
      rests.values[k] = halves.low;
    }
    store(high + i, tops);
    store(low + i, rests);
  }
};

/// Calls body(master) with the kind of master that the pointers describe.
template <typename Body>
void dispatch_master(void* parameter, std::uint16_t* low, fp16* rounded, Body&& body) {
  if (low != nullptr)
    body(SplitMaster{static_cast<std::uint16_t*>(parameter), low});
  else if (rounded != nullptr)
    body(RoundedMaster{static_cast<float*>(parameter), reinterpret_cast<__half*>(rounded)});
  else
    body(PlainMaster{static_cast<float*>(parameter)});
}

}  // namespace tessera::kernels::cuda
