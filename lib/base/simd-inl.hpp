// SPDX-License-Identifier: Apache-2.0
// Highway helpers that every vectorised file of the project shares: 16-bit floats widened on load,
// rounded to nearest even on store (Highway 1.0's own bf16 demotion truncates).
//
// A file that uses it is compiled once per instruction set:
//   #undef HWY_TARGET_INCLUDE
//   #define HWY_TARGET_INCLUDE "base/convert.cpp"
//   #include <hwy/foreach_target.h>
//   #include <hwy/highway.h>
//   #include "base/simd-inl.hpp"
//   HWY_BEFORE_NAMESPACE(); namespace tessera { namespace HWY_NAMESPACE { … } }
//   HWY_AFTER_NAMESPACE(); #if HWY_ONCE  … HWY_EXPORT / HWY_DYNAMIC_DISPATCH … #endif
#if defined(TESSERA_BASE_SIMD_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_BASE_SIMD_INL
#undef TESSERA_BASE_SIMD_INL
#else
#define TESSERA_BASE_SIMD_INL
#endif

#include <cstddef>

#include <hwy/highway.h>

#include "tessera/base/dtype.hpp"

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using FloatTag = hn::ScalableTag<float>;
using FloatVector = hn::Vec<FloatTag>;

/// As many elements as `tag`, a tag of floats, has lanes.
template <class D>
HWY_INLINE hn::Vec<D> load_float(D tag, const float* HWY_RESTRICT p) {
  return hn::LoadU(tag, p);
}

template <class D>
HWY_INLINE hn::Vec<D> load_float(D tag, const bf16* HWY_RESTRICT p) {
  const hn::Rebind<uint16_t, D> narrow;
  const hn::RebindToUnsigned<D> wide;
  const auto bits = hn::LoadU(narrow, reinterpret_cast<const uint16_t*>(p));
  return hn::BitCast(tag, hn::ShiftLeft<16>(hn::PromoteTo(wide, bits)));
}

template <class D>
HWY_INLINE hn::Vec<D> load_float(D tag, const fp16* HWY_RESTRICT p) {
#if HWY_TARGET <= HWY_AVX2 || HWY_TARGET == HWY_NEON
  const hn::Rebind<hwy::float16_t, D> narrow;
  return hn::PromoteTo(tag, hn::LoadU(narrow, reinterpret_cast<const hwy::float16_t*>(p)));
#else
  HWY_ALIGN float lanes[hn::MaxLanes(tag)];
  for (size_t i = 0; i < hn::Lanes(tag); ++i) lanes[i] = p[i].to_float();
  return hn::Load(tag, lanes);
#endif
}

HWY_INLINE void store_float(FloatTag tag, FloatVector value, float* HWY_RESTRICT p) {
  hn::StoreU(value, tag, p);
}

HWY_INLINE void store_float([[maybe_unused]] FloatTag tag, FloatVector value,
                            bf16* HWY_RESTRICT p) {
  const hn::Rebind<uint16_t, FloatTag> narrow;
  const hn::RebindToUnsigned<FloatTag> wide;
  const auto bits = hn::BitCast(wide, value);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(wide, 1));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(wide, 0x7fff)));
  const auto quiet = hn::Or(bits, hn::Set(wide, 0x400000));
  // Not hn::Ne(value, value): on x86 that comparison is false for NaN.
  const auto is_nan = hn::RebindMask(wide, hn::IsNaN(value));
  const auto top = hn::ShiftRight<16>(hn::IfThenElse(is_nan, quiet, rounded));
  hn::StoreU(hn::TruncateTo(narrow, top), narrow, reinterpret_cast<uint16_t*>(p));
}

HWY_INLINE void store_float(FloatTag tag, FloatVector value, fp16* HWY_RESTRICT p) {
#if HWY_TARGET <= HWY_AVX2 || HWY_TARGET == HWY_NEON
  const hn::Rebind<hwy::float16_t, FloatTag> narrow;
  hn::StoreU(hn::DemoteTo(narrow, value), narrow, reinterpret_cast<hwy::float16_t*>(p));
#else
  HWY_ALIGN float lanes[hn::MaxLanes(tag)];
  hn::Store(value, tag, lanes);
  for (size_t i = 0; i < hn::Lanes(tag); ++i) p[i] = fp16::from_float(lanes[i]);
#endif
}

HWY_INLINE float to_float(float value) {
  return value;
}
HWY_INLINE float to_float(bf16 value) {
  return value.to_float();
}
HWY_INLINE float to_float(fp16 value) {
  return value.to_float();
}

/// Rounds one float to T.
template <typename T>
HWY_INLINE T round_to(float value) {
  if constexpr (sizeof(T) == sizeof(float))
    return value;
  else
    return T::from_float(value);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#endif
