// SPDX-License-Identifier: Apache-2.0
// Several neighbouring elements moved in one access of at most 16 bytes, and loops over flat arrays
// made of them.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "tessera/base/shape.hpp"

#include "device/cuda/launch.hpp"
#include "kernels/cuda/numbers.cuh"

namespace tessera::kernels::cuda {

/// How many elements a body handles at once.
template <int N>
using Width = std::integral_constant<int, N>;

/// Elements per access such that the largest of the types moves 16 bytes.
template <typename... T>
inline constexpr int kPackWidth = [] {
  std::size_t largest = 1;
  ((largest = sizeof(T) > largest ? sizeof(T) : largest), ...);
  return static_cast<int>(16 / largest);
}();

template <std::size_t kBytes>
struct Word;
template <>
struct Word<4> {
  using Type = unsigned;
};
template <>
struct Word<8> {
  using Type = uint2;
};
template <>
struct Word<16> {
  using Type = uint4;
};

/// N elements as they lie in memory. A pack of one needs no alignment, others that of their size.
template <typename T, int N>
struct Pack {
  T values[N];

  __device__ float operator[](int i) const { return to_float(values[i]); }
};

template <int N, typename T>
__device__ __forceinline__ Pack<T, N> load(const T* p) {
  Pack<T, N> pack;
  if constexpr (N == 1) {
    pack.values[0] = *p;
  } else {
    const auto word = *reinterpret_cast<const typename Word<N * sizeof(T)>::Type*>(p);
    memcpy(static_cast<void*>(&pack), &word, sizeof(word));
  }
  return pack;
}

template <typename T, int N>
__device__ __forceinline__ void store(T* p, const Pack<T, N>& pack) {
  if constexpr (N == 1) {
    *p = pack.values[0];
  } else {
    typename Word<N * sizeof(T)>::Type word;
    memcpy(&word, static_cast<const void*>(&pack), sizeof(word));
    *reinterpret_cast<decltype(word)*>(p) = word;
  }
}

/// p[k] = f(a[k], b[k], …) in fp32, rounded once.
template <typename T, typename F, typename First, int N, typename... More>
__device__ __forceinline__ void store_map(T* p, F&& f, const Pack<First, N>& a,
                                          const Pack<More, N>&... more) {
  Pack<T, N> result;
#pragma unroll
  for (int k = 0; k < N; ++k) result.values[k] = round_to<T>(f(a[k], more[k]...));
  store(p, result);
}

/// Whether packs of N elements may be moved from and to this address; nullptr is.
template <int N, typename T>
bool is_aligned(const T* p) {
  return reinterpret_cast<std::uintptr_t>(p) % (N * sizeof(T)) == 0;
}
template <int N, typename... T>
bool all_aligned(const T*... p) {
  return (is_aligned<N>(p) && ...);
}

/// Calls body(Width<N>) or body(Width<1>).
template <int N, typename Body>
void dispatch_width(bool wide, Body&& body) {
  if (wide)
    body(Width<N>());
  else
    body(Width<1>());
}

inline constexpr int kThreads = 256;

/// Blocks of `each` items that cover `count`.
inline unsigned blocks_for(std::int64_t count, std::int64_t each) {
  const std::int64_t blocks = ceil_divide(count, each);
  TESSERA_CHECK(
      blocks <= 0x7fffffff, Code::not_supported,
      "an array of " + std::to_string(count) + " elements is beyond what one launch covers");
  return static_cast<unsigned>(blocks);
}

/// A pack for every thread; the last, partial one goes through the same body element by element.
template <typename Op, int N>
__global__ __launch_bounds__(kThreads) void elementwise_kernel(Op op, std::int64_t count) {
  std::int64_t i =
      (static_cast<std::int64_t>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x)) * N;
  if (i + N <= count) {
    op(i, Width<N>());
  } else {
    for (; i < count; ++i) op(i, Width<1>());
  }
}

/// Runs op(i, Width<n>), which handles elements i … i + n - 1, over [0, count). Op::kWidth is the
/// widest n; `wide` says whether all of its arrays are aligned for that.
template <typename Op>
void launch_elementwise(const Stream& stream, const Op& op, std::int64_t count, bool wide) {
  dispatch_width<Op::kWidth>(wide, [&]<int N>(Width<N>) {
    tessera::cuda::launch<elementwise_kernel<Op, N>>(
        stream, dim3(blocks_for(count, std::int64_t{kThreads} * N)), dim3(kThreads), 0, op, count);
  });
}

}  // namespace tessera::kernels::cuda
