// SPDX-License-Identifier: Apache-2.0
// Largest element and sum of exponentials of a row, compiled once per instruction set like
// base/simd-inl.hpp.
#if defined(TESSERA_KERNELS_CPU_ROW_EXP_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_KERNELS_CPU_ROW_EXP_INL
#undef TESSERA_KERNELS_CPU_ROW_EXP_INL
#else
#define TESSERA_KERNELS_CPU_ROW_EXP_INL
#endif

#include <algorithm>
#include <cstdint>
#include <limits>

#include <hwy/highway.h>

#include "kernels/cpu/exp-inl.hpp"
#include "kernels/cpu/vector-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {

/// A NaN in the row may be passed over: it shows in the sum of exponentials.
template <typename T>
float row_max(const T* x, std::int64_t columns) {
  const FloatTag tag;
  auto largest = hn::Set(tag, -std::numeric_limits<float>::infinity());
  for_each_vector(0, columns, [&](std::int64_t i, auto extent) {
    largest = hn::Max(largest, inside_or_lowest(tag, load(tag, x + i, extent), extent));
  });
  return hn::GetLane(hn::MaxOfLanes(tag, largest));
}

/// Sum of e^(x - shift). Blocks of columns are summed on their own first, which keeps the rounding
/// error of a long row small.
template <typename T>
float sum_of_exp(const T* x, std::int64_t columns, float shift) {
  constexpr std::int64_t kBlock = 1024;
  const FloatTag tag;
  const auto offset = hn::Set(tag, shift);
  auto total = hn::Zero(tag);
  for (std::int64_t begin = 0; begin < columns; begin += kBlock) {
    auto sum = hn::Zero(tag);
    for_each_vector(begin, std::min(columns, begin + kBlock), [&](std::int64_t i, auto extent) {
      const auto term = exp_vector(tag, hn::Sub(load(tag, x + i, extent), offset));
      sum = hn::Add(sum, inside_or_zero(tag, term, extent));
    });
    total = hn::Add(total, sum);
  }
  return sum_of_lanes(tag, total);
}

/// y = factor * e^(x - shift); y may be x.
template <typename T>
void scaled_exp(const T* x, T* y, std::int64_t columns, float shift, float factor) {
  const FloatTag tag;
  const auto offset = hn::Set(tag, shift), scale = hn::Set(tag, factor);
  for_each_vector(0, columns, [=](std::int64_t i, auto extent) {
    const auto term = exp_vector(tag, hn::Sub(load(tag, x + i, extent), offset));
    store(tag, hn::Mul(term, scale), y + i, extent);
  });
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#endif
