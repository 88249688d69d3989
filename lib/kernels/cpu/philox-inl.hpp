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

#include "tessera/base/random.hpp"

#include "kernels/cpu/vector-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {

#if HWY_TARGET == HWY_SCALAR

HWY_INLINE void philox_blocks(WordVector (&c)[4], std::uint32_t key0, std::uint32_t key1) {
  const auto words = philox(
      {hn::GetLane(c[0]), hn::GetLane(c[1]), hn::GetLane(c[2]), hn::GetLane(c[3])}, {key0, key1});
  for (size_t i = 0; i < 4; ++i) c[i] = hn::Set(WordTag(), words[i]);
}

#else

using PairTag = hn::RepartitionToWide<WordTag>;
using PairVector = hn::Vec<PairTag>;

/// One round on blocks whose words are the low halves of 64-bit lanes. The high halves hold
/// leftovers, which a multiplication does not look at.
HWY_INLINE void philox_round(PairVector (&c)[4], PairVector key0, PairVector key1) {
  const WordTag words;
  const auto multiply = [=](PairVector a, std::uint32_t b) {
    return hn::MulEven(hn::BitCast(words, a), hn::Set(words, b));
  };
  const auto a = multiply(c[0], 0xD2511F53u), b = multiply(c[2], 0xCD9E8D57u);
  c[0] = hn::Xor3(hn::ShiftRight<32>(b), c[1], key0);
  c[2] = hn::Xor3(hn::ShiftRight<32>(a), c[3], key1);
  c[1] = b;
  c[3] = a;
}

/// Philox4x32-10 on four counter words in place, as tessera::philox. Even and odd lanes go apart,
/// because products are 64 bits wide.
HWY_INLINE void philox_blocks(WordVector (&c)[4], std::uint32_t key0, std::uint32_t key1) {
  const WordTag words;
  const PairTag pairs;
  PairVector even[4], odd[4];
  for (int i = 0; i < 4; ++i) {
    even[i] = hn::BitCast(pairs, c[i]);
    odd[i] = hn::ShiftRight<32>(even[i]);
  }
  for (int round = 0; round < 10; ++round) {
    const auto k0 = hn::Set(pairs, key0), k1 = hn::Set(pairs, key1);
    philox_round(even, k0, k1);
    philox_round(odd, k0, k1);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  for (int i = 0; i < 4; ++i)
    c[i] = hn::OddEven(hn::BitCast(words, hn::ShiftLeft<32>(odd[i])), hn::BitCast(words, even[i]));
}

#endif

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
