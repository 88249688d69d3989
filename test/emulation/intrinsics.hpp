// SPDX-License-Identifier: Apache-2.0
// Arithmetic that device code has and host compilers have not. Functions of reduced accuracy are
// the accurate ones here.
#pragma once

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <math.h>
#include <type_traits>

namespace tessera::emulation {
[[noreturn]] void fail_kernel_at(const char* message);
}  // namespace tessera::emulation

// ---- smaller and larger, as overloads of the global namespace that mix types like CUDA's ----

template <typename A, typename B>
requires std::is_arithmetic_v<A> && std::is_arithmetic_v<B>
constexpr std::common_type_t<A, B> min(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) {
    return std::fmin(static_cast<T>(a), static_cast<T>(b));
  } else {
    return std::min(static_cast<T>(a), static_cast<T>(b));
  }
}
template <typename A, typename B>
requires std::is_arithmetic_v<A> && std::is_arithmetic_v<B>
constexpr std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) {
    return std::fmax(static_cast<T>(a), static_cast<T>(b));
  } else {
    return std::max(static_cast<T>(a), static_cast<T>(b));
  }
}

// ---- rounded arithmetic; the build switches contraction off ----

inline float __fadd_rn(float a, float b) {
  return a + b;
}
inline float __fsub_rn(float a, float b) {
  return a - b;
}
inline float __fmul_rn(float a, float b) {
  return a * b;
}
inline float __fdiv_rn(float a, float b) {
  return a / b;
}
inline float __fsqrt_rn(float a) {
  return std::sqrt(a);
}
inline float __frcp_rn(float a) {
  return 1.0f / a;
}
inline float __fmaf_rn(float a, float b, float c) {
  return std::fma(a, b, c);
}
inline float __frsqrt_rn(float a) {
  return static_cast<float>(1.0 / std::sqrt(double{a}));
}
inline double __dadd_rn(double a, double b) {
  return a + b;
}
inline double __dsub_rn(double a, double b) {
  return a - b;
}
inline double __dmul_rn(double a, double b) {
  return a * b;
}
inline double __ddiv_rn(double a, double b) {
  return a / b;
}
inline double __dsqrt_rn(double a) {
  return std::sqrt(a);
}
inline double __drcp_rn(double a) {
  return 1.0 / a;
}
inline double __fma_rn(double a, double b, double c) {
  return std::fma(a, b, c);
}

inline float rsqrtf(float a) {
  return static_cast<float>(1.0 / std::sqrt(double{a}));
}
inline double rsqrt(double a) {
  return 1.0 / std::sqrt(a);
}
inline float __saturatef(float a) {
  return a > 0.0f ? (a < 1.0f ? a : 1.0f) : 0.0f;
}
inline float __fdividef(float a, float b) {
  return a / b;
}

// The C library declares these for itself and exports none of them.
extern "C" {
inline float __expf(float a) noexcept {
  return expf(a);
}
inline float __logf(float a) noexcept {
  return logf(a);
}
inline float __log2f(float a) noexcept {
  return log2f(a);
}
inline float __log10f(float a) noexcept {
  return log10f(a);
}
inline float __sinf(float a) noexcept {
  return sinf(a);
}
inline float __cosf(float a) noexcept {
  return cosf(a);
}
inline float __tanf(float a) noexcept {
  return tanf(a);
}
inline float __powf(float a, float b) noexcept {
  return powf(a, b);
}
}
inline float __exp2f(float a) {
  return exp2f(a);
}

// ---- bits ----

inline int __float_as_int(float a) {
  return std::bit_cast<int>(a);
}
inline unsigned __float_as_uint(float a) {
  return std::bit_cast<unsigned>(a);
}
inline float __int_as_float(int a) {
  return std::bit_cast<float>(a);
}
inline float __uint_as_float(unsigned a) {
  return std::bit_cast<float>(a);
}
inline long long __double_as_longlong(double a) {
  return std::bit_cast<long long>(a);
}
inline double __longlong_as_double(long long a) {
  return std::bit_cast<double>(a);
}

inline int __popc(unsigned a) {
  return std::popcount(a);
}
inline int __popcll(unsigned long long a) {
  return std::popcount(a);
}
inline int __clz(int a) {
  return std::countl_zero(static_cast<unsigned>(a));
}
inline int __clzll(long long a) {
  return std::countl_zero(static_cast<unsigned long long>(a));
}
inline int __ffs(int a) {
  return __builtin_ffs(a);
}
inline int __ffsll(long long a) {
  return __builtin_ffsll(a);
}
inline unsigned __brev(unsigned a) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; ++bit, a >>= 1) {
    reversed = (reversed << 1) | (a & 1u);
  }
  return reversed;
}
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const std::uint64_t bytes = (std::uint64_t{y} << 32) | x;
  unsigned result = 0;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned field = (selector >> (4 * i)) & 0xfu;
    const auto byte = static_cast<unsigned>(bytes >> (8 * (field & 7u))) & 0xffu;
    const unsigned sign = (byte & 0x80u) != 0 ? 0xffu : 0u;
    result |= ((field & 8u) != 0 ? sign : byte) << (8 * i);
  }
  return result;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((((std::uint64_t{high} << 32) | low) << (shift & 31u)) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>(((std::uint64_t{high} << 32) | low) >> (shift & 31u));
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((std::uint64_t{a} * b) >> 32);
}
inline int __mulhi(int a, int b) {
  return static_cast<int>((std::int64_t{a} * b) >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<unsigned long long>((static_cast<Wide>(a) * b) >> 64);
}

// ---- conversions ----

inline float __int2float_rn(int a) {
  return static_cast<float>(a);
}
inline float __uint2float_rn(unsigned a) {
  return static_cast<float>(a);
}
inline float __ll2float_rn(long long a) {
  return static_cast<float>(a);
}
inline float __ull2float_rn(unsigned long long a) {
  return static_cast<float>(a);
}
inline double __int2double_rn(int a) {
  return a;
}
inline float __double2float_rn(double a) {
  return static_cast<float>(a);
}
inline int __float2int_rz(float a) {
  return static_cast<int>(a);
}
inline int __float2int_rn(float a) {
  return static_cast<int>(std::nearbyint(a));
}
inline int __float2int_rd(float a) {
  return static_cast<int>(std::floor(a));
}
inline unsigned __float2uint_rz(float a) {
  return static_cast<unsigned>(a);
}
inline unsigned __float2uint_rn(float a) {
  return static_cast<unsigned>(std::nearbyint(a));
}

// ---- 16-bit floats: what the toolkit's headers leave out on the host ----

inline __half __hfma(__half a, __half b, __half c) {
  // The product is exact in double, and so is nearly always the sum; one rounding in the end.
  return __double2half(
      std::fma(double{__half2float(a)}, double{__half2float(b)}, double{__half2float(c)}));
}
inline __nv_bfloat16 __hfma(__nv_bfloat16 a, __nv_bfloat16 b, __nv_bfloat16 c) {
  return __double2bfloat16(std::fma(double{__bfloat162float(a)}, double{__bfloat162float(b)},
                                    double{__bfloat162float(c)}));
}
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) {
  return __halves2half2(__hfma(__low2half(a), __low2half(b), __low2half(c)),
                        __hfma(__high2half(a), __high2half(b), __high2half(c)));
}
inline __nv_bfloat162 __hfma2(__nv_bfloat162 a, __nv_bfloat162 b, __nv_bfloat162 c) {
  return __halves2bfloat162(__hfma(__low2bfloat16(a), __low2bfloat16(b), __low2bfloat16(c)),
                            __hfma(__high2bfloat16(a), __high2bfloat16(b), __high2bfloat16(c)));
}

// ---- control ----

[[noreturn]] inline void __trap() {
  tessera::emulation::fail_kernel_at("__trap() was called");
}
inline void __nanosleep(unsigned) {}
inline long long clock64() {
  return std::chrono::steady_clock::now().time_since_epoch().count();
}
