// SPDX-License-Identifier: Apache-2.0
// RandomStream's words for a run of indices, a vector of Philox blocks at a time.
#if defined(TESSERA_KERNELS_CPU_PHILOX_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_KERNELS_CPU_PHILOX_INL
#undef TESSERA_KERNELS_CPU_PHILOX_INL
#else
#define TESSERA_KERNELS_CPU_PHILOX_INL
#endif

#include <cstdint>

#include <hwy/highway.h>

#include "kernels/cpu/vector-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {

struct Product {
  WordVector high, low;
};
/// 32 x 32 -> 64 bits in every lane.
HWY_INLINE Product multiply(WordVector a, WordVector b) {
  const WordTag tag;
#if HWY_TARGET == HWY_SCALAR
  const auto product = std::uint64_t{hn::GetLane(a)} * hn::GetLane(b);
  return {hn::Set(tag, static_cast<std::uint32_t>(product >> 32)), hn::Mul(a, b)};
#else
  const hn::RepartitionToWide<WordTag> wide;
  const auto even = hn::MulEven(a, b);
  const auto odd = hn::MulEven(hn::BitCast(tag, hn::ShiftRight<32>(hn::BitCast(wide, a))), b);
  const auto top = hn::And(odd, hn::Set(wide, 0xffffffff00000000u));
  const auto high = hn::Or(hn::ShiftRight<32>(even), top);
  return {hn::BitCast(tag, high), hn::Mul(a, b)};
#endif
}

/// Philox4x32-10 on four counter words in place, as tessera::philox.
HWY_INLINE void philox_blocks(WordVector (&c)[4], std::uint32_t key0, std::uint32_t key1) {
  const WordTag tag;
  for (int round = 0; round < 10; ++round) {
    const Product a = multiply(c[0], hn::Set(tag, 0xD2511F53u));
    const Product b = multiply(c[2], hn::Set(tag, 0xCD9E8D57u));
    c[0] = hn::Xor(hn::Xor(b.high, c[1]), hn::Set(tag, key0));
    c[2] = hn::Xor(hn::Xor(a.high, c[3]), hn::Set(tag, key1));
    c[1] = b.low;
    c[3] = a.low;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

/// Words of up to kCount consecutive indices.
template <std::int64_t kCount>
class PhiloxWords {
 public:
  PhiloxWords(std::uint64_t seed, std::uint64_t stream)
      : key0_(static_cast<std::uint32_t>(seed)),
        key1_(static_cast<std::uint32_t>(seed >> 32)),
        stream0_(static_cast<std::uint32_t>(stream)),
        stream1_(static_cast<std::uint32_t>(stream >> 32)) {}

  /// The word of index first + i is at [i] for i < count; a vector may be read beyond the last.
  const std::uint32_t* fill(std::uint64_t first, std::int64_t count) {
    const WordTag tag;
    const std::uint64_t start = first / 4,
                        stop = (first + static_cast<std::uint64_t>(count) + 3) / 4;
    std::uint32_t* target = words_;
    for (std::uint64_t block = start; block < stop; block += hn::Lanes(tag)) {
      WordVector c[4] = {hn::Zero(tag), hn::Zero(tag), hn::Set(tag, stream0_),
                         hn::Set(tag, stream1_)};
      set_counter(block, c[0], c[1]);
      philox_blocks(c, key0_, key1_);
      hn::StoreInterleaved4(c[0], c[1], c[2], c[3], tag, target);
      target += 4 * hn::Lanes(tag);
    }
    return words_ + first % 4;
  }

 private:
  static HWY_INLINE void set_counter(std::uint64_t block, WordVector& low, WordVector& high) {
    const WordTag tag;
    const auto base = hn::Set(tag, static_cast<std::uint32_t>(block));
    low = hn::Iota(tag, static_cast<std::uint32_t>(block));
    // A lane that wrapped around is smaller than the first one and carries into the high word.
    const auto carry = hn::IfThenElseZero(hn::Lt(low, base), hn::Set(tag, 1));
    high = hn::Add(hn::Set(tag, static_cast<std::uint32_t>(block >> 32)), carry);
  }

  std::uint32_t key0_, key1_, stream0_, stream1_;
  // Whole groups of blocks, the first index anywhere in its block, and a vector to read beyond.
  HWY_ALIGN std::uint32_t words_[kCount + 4 + 5 * hn::MaxLanes(WordTag())];
};

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#endif
