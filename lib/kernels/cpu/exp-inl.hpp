// SPDX-License-Identifier: Apache-2.0
// The exponential function of fp32 vectors, compiled once per instruction set like
// base/simd-inl.hpp.
#if defined(TESSERA_KERNELS_CPU_EXP_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_KERNELS_CPU_EXP_INL
#undef TESSERA_KERNELS_CPU_EXP_INL
#else
#define TESSERA_KERNELS_CPU_EXP_INL
#endif

#include <cstdint>

#include <hwy/highway.h>

#include "base/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {

/// e^x for x <= 88, within 1 unit in the last place; 0 below the smallest normal number; NaN stays
/// NaN (Highway's own Exp turns it into 0). Source of the polynomial: minimax on [-ln2/2, ln2/2].
HWY_INLINE FloatVector exp_vector(FloatTag tag, FloatVector x) {
  const hn::RebindToSigned<FloatTag> integers;
  const auto whole = hn::Round(hn::Mul(x, hn::Set(tag, 1.442695041f)));
  auto rest = hn::MulAdd(whole, hn::Set(tag, -6.93145752e-1f), x);
  rest = hn::MulAdd(whole, hn::Set(tag, -1.42860677e-6f), rest);
  auto sum = hn::Set(tag, 1.37805939e-3f);
  sum = hn::MulAdd(sum, rest, hn::Set(tag, 8.37312452e-3f));
  sum = hn::MulAdd(sum, rest, hn::Set(tag, 4.16695364e-2f));
  sum = hn::MulAdd(sum, rest, hn::Set(tag, 1.66664720e-1f));
  sum = hn::MulAdd(sum, rest, hn::Set(tag, 4.99999851e-1f));
  sum = hn::MulAdd(sum, rest, hn::Set(tag, 1.0f));
  sum = hn::MulAdd(sum, rest, hn::Set(tag, 1.0f));
  const auto exponent = hn::Add(hn::ConvertTo(integers, whole), hn::Set(integers, 127));
  const auto power = hn::BitCast(tag, hn::ShiftLeft<23>(exponent));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(tag, -87.33f)), hn::Mul(sum, power));
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#endif
