// SPDX-License-Identifier: Apache-2.0
// Walking flat arrays in SIMD vectors, compiled once per instruction set like base/simd-inl.hpp.
//
// The last, partial vector goes through a padded copy and the same instructions as all others, so
// that an element's bits do not depend on where its array begins or ends.
#if defined(TESSERA_KERNELS_CPU_VECTOR_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_KERNELS_CPU_VECTOR_INL
#undef TESSERA_KERNELS_CPU_VECTOR_INL
#else
#define TESSERA_KERNELS_CPU_VECTOR_INL
#endif

#include <cstdint>
#include <cstring>
#include <limits>

#include <hwy/highway.h>

#include "base/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {

using WordTag = hn::RebindToUnsigned<FloatTag>;
using WordVector = hn::Vec<WordTag>;

/// How many lanes of a vector are inside the array: all, or the first `count`. Lanes outside are
/// zero on load and are not stored.
struct Whole {};
struct Part {
  size_t count;
};

template <typename T>
HWY_INLINE FloatVector load(FloatTag tag, const T* p, Whole) {
  return load_float(tag, p);
}
template <typename T>
HWY_INLINE FloatVector load(FloatTag tag, const T* p, Part part) {
  HWY_ALIGN T lanes[hn::MaxLanes(FloatTag())] = {};
  std::memcpy(lanes, p, part.count * sizeof(T));
  return load_float(tag, lanes);
}

template <typename T>
HWY_INLINE void store(FloatTag tag, FloatVector value, T* p, Whole) {
  store_float(tag, value, p);
}
template <typename T>
HWY_INLINE void store(FloatTag tag, FloatVector value, T* p, Part part) {
  HWY_ALIGN T lanes[hn::MaxLanes(FloatTag())];
  store_float(tag, value, lanes);
  std::memcpy(p, lanes, part.count * sizeof(T));
}

/// 16-bit words, widened.
HWY_INLINE WordVector load_words(FloatTag, const std::uint16_t* p, Whole) {
  const hn::Rebind<std::uint16_t, FloatTag> narrow;
  return hn::PromoteTo(WordTag(), hn::LoadU(narrow, p));
}
HWY_INLINE WordVector load_words(FloatTag tag, const std::uint16_t* p, Part part) {
  HWY_ALIGN std::uint16_t lanes[hn::MaxLanes(FloatTag())] = {};
  std::memcpy(lanes, p, part.count * sizeof(*p));
  return load_words(tag, lanes, Whole());
}
/// The low 16 bits of each word.
HWY_INLINE void store_words(FloatTag, WordVector value, std::uint16_t* p, Whole) {
  const hn::Rebind<std::uint16_t, FloatTag> narrow;
  hn::StoreU(hn::TruncateTo(narrow, value), narrow, p);
}
HWY_INLINE void store_words(FloatTag tag, WordVector value, std::uint16_t* p, Part part) {
  HWY_ALIGN std::uint16_t lanes[hn::MaxLanes(FloatTag())];
  store_words(tag, value, lanes, Whole());
  std::memcpy(p, lanes, part.count * sizeof(*p));
}

/// Zeroes the lanes outside the array: for sums over something that zero does not map to zero.
HWY_INLINE FloatVector inside_or_zero(FloatTag, FloatVector value, Whole) {
  return value;
}
HWY_INLINE FloatVector inside_or_zero(FloatTag tag, FloatVector value, Part part) {
  return hn::IfThenElseZero(hn::FirstN(tag, part.count), value);
}

/// The same for maxima.
HWY_INLINE FloatVector inside_or_lowest(FloatTag, FloatVector value, Whole) {
  return value;
}
HWY_INLINE FloatVector inside_or_lowest(FloatTag tag, FloatVector value, Part part) {
  const auto lowest = hn::Set(tag, -std::numeric_limits<float>::infinity());
  return hn::IfThenElse(hn::FirstN(tag, part.count), value, lowest);
}

/// Calls body(i, Whole or Part) for i = begin, begin + lanes, … < end.
template <typename Body>
HWY_INLINE void for_each_vector(std::int64_t begin, std::int64_t end, Body&& body) {
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(FloatTag()));
  std::int64_t i = begin;
  for (; i + lanes <= end; i += lanes) body(i, Whole());
  if (i < end) body(i, Part{static_cast<size_t>(end - i)});
}

HWY_INLINE float sum_of_lanes(FloatTag tag, FloatVector value) {
  return hn::GetLane(hn::SumOfLanes(tag, value));
}

/// Sum of the vectors term(i, extent) over [0, count). Terms are zero outside the array. Runs of 32
/// vectors are summed apart, so that rounding errors stay small where vectors are narrow, too.
template <typename Term>
HWY_INLINE float sum_of_terms(std::int64_t count, Term&& term) {
  const FloatTag tag;
  const std::int64_t run = 32 * static_cast<std::int64_t>(hn::Lanes(tag));
  auto total = hn::Zero(tag);
  for (std::int64_t begin = 0; begin < count; begin += run) {
    auto part = hn::Zero(tag);
    for_each_vector(begin, HWY_MIN(count, begin + run),
                    [&](std::int64_t i, auto extent) { part = hn::Add(part, term(i, extent)); });
    total = hn::Add(total, part);
  }
  return sum_of_lanes(tag, total);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#endif
