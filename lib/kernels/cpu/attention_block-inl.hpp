// SPDX-License-Identifier: Apache-2.0
// Pieces that attention's forward and backward passes share: packed fp32 blocks, what a causal
// mask leaves visible, dropout factors. Compiled once per instruction set like base/simd-inl.hpp.
#if defined(TESSERA_KERNELS_CPU_ATTENTION_BLOCK_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_KERNELS_CPU_ATTENTION_BLOCK_INL
#undef TESSERA_KERNELS_CPU_ATTENTION_BLOCK_INL
#else
#define TESSERA_KERNELS_CPU_ATTENTION_BLOCK_INL
#endif

#include <algorithm>
#include <cstdint>

#include <hwy/cache_control.h>
#include <hwy/highway.h>
#include <omp.h>

#include "tessera/base/cpu_features.hpp"
#include "tessera/base/shape.hpp"
#include "tessera/device/buffer.hpp"
#include "tessera/kernels/attention.hpp"

#include "kernels/cpu/exp-inl.hpp"
#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/philox-inl.hpp"
#include "kernels/cpu/tile-inl.hpp"
#include "kernels/cpu/vector-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {

// A block of probabilities, [kQueryBlock, kKeyBlock] fp32, stays in the second-level cache.
inline constexpr std::int64_t kQueryBlock = 64;
inline constexpr std::int64_t kKeyBlock = 128;
// Rows of blocks with a column a key. Not a power of two: walking down a column would meet the same
// few sets of the cache again and again.
inline constexpr std::int64_t kKeyStride = kKeyBlock + 16;

/// A range of queries or of keys.
struct Range {
  std::int64_t first, count;
};

inline Range block_of(std::int64_t first, std::int64_t total, std::int64_t block) {
  return {first, std::min(block, total - first)};
}

/// Sizes of one call, with rows of a head padded to whole vectors.
struct AttentionSizes {
  explicit AttentionSizes(const kernels::AttentionForward& args)
      : head_dim(args.head_dim),
        padded(round_up(args.head_dim, static_cast<std::int64_t>(hn::Lanes(FloatTag())))),
        group(args.heads / args.kv_heads),
        first_position(args.keys - args.queries),
        causal(args.causal) {}

  std::int64_t head_dim, padded, group;
  std::int64_t first_position;  // key position of query 0
  bool causal;

  /// How many keys of a block the query sees.
  std::int64_t visible(std::int64_t query, Range keys) const {
    if (!causal) return keys.count;
    const std::int64_t end = query + first_position + 1 - keys.first;
    return std::clamp<std::int64_t>(end, 0, keys.count);
  }
  /// The first query that sees the key.
  std::int64_t first_query(std::int64_t key) const {
    return causal ? std::max<std::int64_t>(0, key - first_position) : 0;
  }
};

/// What a batch entry has before its padding.
struct Filled {
  std::int64_t queries = 0, keys = 0;
};

inline Filled filled_of(const kernels::AttentionForward& args, std::int64_t batch) {
  if (args.lengths == nullptr) return {args.queries, args.keys};
  return {args.lengths[batch], args.lengths[batch]};
}

/// Scratch memory of one thread, handed out piece by piece. Without memory it only counts.
class Scratch {
 public:
  explicit Scratch(float* memory = nullptr) : memory_(memory) {}
  float* take(std::int64_t count) {
    float* result = memory_ ? memory_ + used_ : nullptr;
    used_ += round_up(count, 16);  // pieces start at cache lines
    return result;
  }
  std::int64_t used() const { return used_; }

 private:
  float* memory_;
  std::int64_t used_ = 0;
};

inline std::int64_t multiply_adds(const kernels::AttentionForward& args) {
  return 2 * args.batch * args.heads * args.queries * args.keys * args.head_dim;
}
inline std::int64_t multiply_adds(const kernels::AttentionBackward& args) {
  return multiply_adds(args.forward);  // and more, but as small
}

/// Calls body(worker) on every thread that the sizes are worth, each with a Worker(args, scratch)
/// of its own.
template <typename Worker, typename Args, typename Body>
void with_workers(const Args& args, Body&& body) {
  Scratch counter;
  Worker(args, counter);
  const std::int64_t per_thread = counter.used();
  const Buffer memory = allocate(static_cast<size_t>(per_thread * threads()) * sizeof(float),
                                 Device{}, Purpose::workspace);
#pragma omp parallel if (multiply_adds(args) > kernels::kSmallProduct)
  {
    Scratch scratch(memory.as<float>() + omp_get_thread_num() * per_thread);
    Worker worker(args, scratch);
    body(worker);
  }
}

// Rows of one head lie a whole token apart, which hardware does not foresee.
template <typename T>
HWY_INLINE void prefetch_row(const T* row, std::int64_t count) {
  constexpr auto kLine = static_cast<std::int64_t>(64 / sizeof(T));
  for (std::int64_t i = 0; i < count; i += kLine) hwy::Prefetch(row + i);
}

/// target[r, 0..padded) = factor * source row r, zero beyond head_dim.
template <typename T>
void pack_rows(const T* source, std::int64_t stride, std::int64_t rows, const AttentionSizes& sizes,
               float factor, float* target) {
  constexpr std::int64_t kAhead = 16;
  const FloatTag tag;
  const auto scale = hn::Set(tag, factor);
  for (std::int64_t r = 0; r < rows; ++r) {
    const T* from = source + r * stride;
    float* to = target + r * sizes.padded;
    if (r + kAhead < rows) prefetch_row(from + kAhead * stride, sizes.head_dim);
    for_each_vector(0, sizes.head_dim, [=](std::int64_t i, auto extent) {
      hn::StoreU(hn::Mul(scale, load(tag, from + i, extent)), tag, to + i);
    });
  }
}

// Corner of the blocks that are transposed in registers.
#if HWY_TARGET == HWY_SCALAR
inline constexpr std::int64_t kCorner = 1;

HWY_INLINE void transpose_corner(const float* source, std::int64_t, float* target) {
  *target = *source;
}
#else
inline constexpr std::int64_t kCorner = 4;

HWY_INLINE void transpose_corner(const float* source, std::int64_t stride, float* target) {
  const hn::FixedTag<float, 4> tag;
  const hn::RepartitionToWide<decltype(tag)> pairs;
  const auto a = hn::LoadU(tag, source), b = hn::LoadU(tag, source + stride);
  const auto c = hn::LoadU(tag, source + 2 * stride), d = hn::LoadU(tag, source + 3 * stride);
  const auto ab = hn::BitCast(pairs, hn::InterleaveLower(tag, a, b));
  const auto cd = hn::BitCast(pairs, hn::InterleaveLower(tag, c, d));
  const auto ab_upper = hn::BitCast(pairs, hn::InterleaveUpper(tag, a, b));
  const auto cd_upper = hn::BitCast(pairs, hn::InterleaveUpper(tag, c, d));
  const auto put = [&](auto value, std::int64_t i) {
    hn::StoreU(hn::BitCast(tag, value), tag, target + i * kKeyStride);
  };
  put(hn::InterleaveLower(pairs, ab, cd), 0);
  put(hn::InterleaveUpper(pairs, ab, cd), 1);
  put(hn::InterleaveLower(pairs, ab_upper, cd_upper), 2);
  put(hn::InterleaveUpper(pairs, ab_upper, cd_upper), 3);
}
#endif

/// target[i, r] = source[r, i] for the packed rows of a key block. Columns beyond `rows` hold
/// whatever the scratch memory holds: those keys are never visible.
inline void transpose_rows(const float* source, std::int64_t rows, const AttentionSizes& sizes,
                           float* target) {
  for (std::int64_t r = 0; r < rows; r += kCorner)
    for (std::int64_t i = 0; i < sizes.padded; i += kCorner)
      transpose_corner(source + r * sizes.padded + i, sizes.padded, target + i * kKeyStride + r);
}

/// target row r = factor * packed row r, rounded once.
template <typename T>
void unpack_rows(const float* source, std::int64_t rows, const AttentionSizes& sizes, float factor,
                 T* target, std::int64_t stride) {
  const FloatTag tag;
  const auto scale = hn::Set(tag, factor);
  for (std::int64_t r = 0; r < rows; ++r)
    for_each_vector(0, sizes.head_dim,
                    [=, from = source + r * sizes.padded, to = target + r * stride](std::int64_t i,
                                                                                    auto extent) {
                      store(tag, hn::Mul(scale, hn::LoadU(tag, from + i)), to + i, extent);
                    });
}

/// The factors of dropped and kept probabilities, by global element index as RandomStream numbers
/// them.
class ProbabilityDropout {
 public:
  explicit ProbabilityDropout(const kernels::AttentionForward& args)
      : args_(args), words_(args.dropout_seed, args.dropout_stream) {}

  bool active() const { return args_.dropout > 0; }
  /// factors[s] = 0 or 1 / (1 - p) for the first `visible` keys of a block, rounded up to whole
  /// vectors.
  void fill(std::int64_t batch, std::int64_t head, std::int64_t query, std::int64_t first_key,
            std::int64_t visible, float* factors) {
    const FloatTag tag;
    const hn::RebindToSigned<FloatTag> integers;
    const std::int64_t heads = args_.all_heads > 0 ? args_.all_heads : args_.heads;
    const bool some = args_.all_positions > 0;
    const std::int64_t queries = some ? args_.all_positions : args_.queries;
    const std::int64_t keys = some ? args_.all_positions : args_.keys;
    const std::int64_t row =
        ((args_.batch_offset + batch) * heads + args_.head_offset + head) * queries +
        args_.query_offset + query;
    const std::uint32_t* bits =
        words_.fill(static_cast<std::uint64_t>(row * keys + args_.key_offset + first_key), visible);
    const auto kept = hn::Set(tag, 1 / (1 - args_.dropout));
    const auto threshold = hn::Set(tag, args_.dropout), unit = hn::Set(tag, 0x1p-24f);
    for (std::int64_t s = 0; s < visible; s += static_cast<std::int64_t>(hn::Lanes(tag))) {
      const auto word = hn::ShiftRight<8>(hn::LoadU(WordTag(), bits + s));
      const auto uniform = hn::Mul(hn::ConvertTo(tag, hn::BitCast(integers, word)), unit);
      hn::StoreU(hn::IfThenElseZero(hn::Ge(uniform, threshold), kept), tag, factors + s);
    }
  }

 private:
  const kernels::AttentionForward& args_;
  PhiloxWords<kKeyBlock> words_;
};

/// Where element 0 of (batch, head) is.
template <typename T>
T* head_start(const void* base, std::int64_t batch, std::int64_t batch_stride, std::int64_t head,
              const AttentionSizes& sizes) {
  return const_cast<T*>(static_cast<const T*>(base)) + batch * batch_stride + head * sizes.head_dim;
}

/// Rows first to last - 1 of a head become 0.
template <typename T>
void clear_rows(T* rows, std::int64_t stride, std::int64_t first, std::int64_t last,
                const AttentionSizes& sizes) {
  for (std::int64_t r = first; r < last; ++r) std::fill_n(rows + r * stride, sizes.head_dim, T{});
}

/// The results of queries in the padding.
template <typename T>
void clear_results(const kernels::AttentionForward& args, const AttentionSizes& sizes,
                   std::int64_t batch, std::int64_t head, std::int64_t first, std::int64_t last) {
  if (first >= last) return;
  clear_rows(head_start<T>(args.y, batch, args.y_batch_stride, head, sizes), args.y_row_stride,
             first, last, sizes);
  if (args.lse)
    std::fill_n(args.lse + (batch * args.heads + head) * args.queries + first, last - first, 0.0f);
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#endif
