// SPDX-License-Identifier: Apache-2.0
// The bit arithmetic of split masters on vectors, for everything that updates one.
#if defined(TESSERA_KERNELS_CPU_SPLIT_MASTER_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_KERNELS_CPU_SPLIT_MASTER_INL
#undef TESSERA_KERNELS_CPU_SPLIT_MASTER_INL
#else
#define TESSERA_KERNELS_CPU_SPLIT_MASTER_INL
#endif

#include <cstdint>

#include <hwy/highway.h>

#include "kernels/cpu/vector-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {

template <typename Extent>
HWY_INLINE FloatVector load_split(FloatTag tag, const bf16* high, const std::uint16_t* low,
                                  Extent extent) {
  const WordTag words;
  const auto rounded = load_words(tag, reinterpret_cast<const std::uint16_t*>(high), extent);
  const auto rest = load_words(tag, low, extent);
  // Where rounding had gone up, one comes off again; the shift drops what wraps around.
  const auto top = hn::Sub(rounded, hn::ShiftRight<15>(rest));
  return hn::BitCast(tag, hn::Or(hn::ShiftLeft<16>(hn::BitCast(words, top)), rest));
}

template <typename Extent>
HWY_INLINE void store_split(FloatTag tag, FloatVector master, bf16* high, std::uint16_t* low,
                            Extent extent) {
  const WordTag words;
  const auto bits = hn::BitCast(words, master);
  const auto rounded = hn::ShiftRight<16>(hn::Add(bits, hn::Set(words, 0x8000u)));
  store_words(tag, rounded, reinterpret_cast<std::uint16_t*>(high), extent);
  store_words(tag, bits, low, extent);
}

/// A parameter that is plain fp32, split, or fp32 with an fp16 copy: what update rules load and
/// store through.
struct PlainMaster {
  float* value;

  template <typename Extent>
  HWY_INLINE FloatVector get(FloatTag tag, std::int64_t i, Extent extent) const {
    return load(tag, value + i, extent);
  }
  template <typename Extent>
  HWY_INLINE void set(FloatTag tag, FloatVector master, std::int64_t i, Extent extent) const {
    store(tag, master, value + i, extent);
  }
};
struct SplitMaster {
  bf16* high;
  std::uint16_t* low;

  template <typename Extent>
  HWY_INLINE FloatVector get(FloatTag tag, std::int64_t i, Extent extent) const {
    return load_split(tag, high + i, low + i, extent);
  }
  template <typename Extent>
  HWY_INLINE void set(FloatTag tag, FloatVector master, std::int64_t i, Extent extent) const {
    store_split(tag, master, high + i, low + i, extent);
  }
};

struct RoundedMaster {
  float* value;
  fp16* rounded;

  template <typename Extent>
  HWY_INLINE FloatVector get(FloatTag tag, std::int64_t i, Extent extent) const {
    return load(tag, value + i, extent);
  }
  template <typename Extent>
  HWY_INLINE void set(FloatTag tag, FloatVector master, std::int64_t i, Extent extent) const {
    store(tag, master, value + i, extent);
    store(tag, master, rounded + i, extent);
  }
};

/// Calls body(master) with the kind of master that the pointers of an update describe.
template <typename Args, typename Body>
void dispatch_master(const Args& args, Body&& body) {
  if (args.low != nullptr)
    body(SplitMaster{static_cast<bf16*>(args.parameter), args.low});
  else if (args.rounded != nullptr)
    body(RoundedMaster{static_cast<float*>(args.parameter), args.rounded});
  else
    body(PlainMaster{static_cast<float*>(args.parameter)});
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#endif
