// SPDX-License-Identifier: Apache-2.0
// Attention of a few new queries over many keys, as in generation: keys and values are read once,
// in place. Compiled once per instruction set like base/simd-inl.hpp.
#if defined(TESSERA_KERNELS_CPU_ATTENTION_FEW_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_KERNELS_CPU_ATTENTION_FEW_INL
#undef TESSERA_KERNELS_CPU_ATTENTION_FEW_INL
#else
#define TESSERA_KERNELS_CPU_ATTENTION_FEW_INL
#endif

#include <cmath>
#include <cstdint>

#include <hwy/highway.h>

#include "kernels/cpu/attention_block-inl.hpp"
#include "kernels/cpu/row_exp-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {

// With more queries than this it pays to pack the keys and values.
inline constexpr std::int64_t kFewQueries = 3;

/// One head's queries against all keys, one query after the other.
template <typename T>
class FewQueries {
 public:
  FewQueries(const kernels::AttentionForward& args, Scratch& scratch)
      : args_(args),
        sizes_(args),
        dropout_(args),
        query_(scratch.take(sizes_.padded)),
        sums_(scratch.take(sizes_.padded)),
        // Whole vectors beyond the last key are written.
        scores_(scratch.take(args.keys + static_cast<std::int64_t>(hn::Lanes(FloatTag())))),
        factors_(scratch.take(kKeyBlock)) {}

  void run(std::int64_t batch, std::int64_t head) {
    const std::int64_t kv_head = head / sizes_.group;
    const T* q = head_start<T>(args_.q, batch, args_.q_batch_stride, head, sizes_);
    const T* k = head_start<T>(args_.k, batch, args_.k_batch_stride, kv_head, sizes_);
    const T* v = head_start<T>(args_.v, batch, args_.v_batch_stride, kv_head, sizes_);
    T* y = head_start<T>(args_.y, batch, args_.y_batch_stride, head, sizes_);
    const Filled filled = filled_of(args_, batch);
    clear_results<T>(args_, sizes_, batch, head, filled.queries, args_.queries);
    for (std::int64_t t = 0; t < filled.queries; ++t) {
      const std::int64_t seen = sizes_.visible(t, {0, filled.keys});
      pack_rows(q + t * args_.q_row_stride, 0, 1, sizes_, args_.scale, query_);
      for (std::int64_t s = 0; s < seen; ++s) scores_[s] = score(k + s * args_.k_row_stride);
      const float largest = row_max(scores_, seen);
      const float total = sum_of_exp(scores_, seen, largest);
      scaled_exp(scores_, scores_, seen, largest, 1 / total);
      if (dropout_.active()) drop(batch, head, t, seen);
      add_values(v, seen);
      unpack_rows(sums_, 1, sizes_, 1, y + t * args_.y_row_stride, 0);
      if (args_.lse)
        args_.lse[(batch * args_.heads + head) * args_.queries + t] = largest + std::log(total);
    }
  }

 private:
  float score(const T* key) const {
    const FloatTag tag;
    auto sum = hn::Zero(tag);
    for_each_vector(0, sizes_.head_dim, [&](std::int64_t i, auto extent) {
      sum = hn::MulAdd(hn::LoadU(tag, query_ + i), load(tag, key + i, extent), sum);
    });
    return sum_of_lanes(tag, sum);
  }

  void drop(std::int64_t batch, std::int64_t head, std::int64_t query, std::int64_t seen) {
    for (std::int64_t first = 0; first < seen; first += kKeyBlock) {
      const Range keys = block_of(first, seen, kKeyBlock);
      dropout_.fill(batch, head, query, first, keys.count, factors_);
      for (std::int64_t s = 0; s < keys.count; ++s) scores_[first + s] *= factors_[s];
    }
  }

  // Blocks of keys stay in the first-level cache while their columns are walked.
  void add_values(const T* v, std::int64_t seen) {
    const FloatTag tag;
    std::fill_n(sums_, sizes_.padded, 0.0f);
    for (std::int64_t first = 0; first < seen; first += kKeyBlock) {
      const Range keys = block_of(first, seen, kKeyBlock);
      for_each_vector(0, sizes_.head_dim, [&](std::int64_t i, auto extent) {
        const T* column = v + first * args_.v_row_stride + i;
        auto sum = hn::LoadU(tag, sums_ + i);
        for (std::int64_t s = 0; s < keys.count; ++s)
          sum = hn::MulAdd(hn::Set(tag, scores_[first + s]),
                           load(tag, column + s * args_.v_row_stride, extent), sum);
        hn::StoreU(sum, tag, sums_ + i);
      });
    }
  }

  const kernels::AttentionForward& args_;
  AttentionSizes sizes_;
  ProbabilityDropout dropout_;
  float* query_;    // [padded], scaled
  float* sums_;     // [padded]
  float* scores_;   // [keys]
  float* factors_;  // [kKeyBlock]
};

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#endif
