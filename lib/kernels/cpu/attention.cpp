// SPDX-License-Identifier: Apache-2.0
// Attention on the CPU: blocks of queries and keys in fp32, online softmax, recomputation in the
// backward pass.
#include "kernels/cpu/attention.hpp"

#include <cmath>
#include <limits>

#include "tessera/base/random.hpp"

#include "kernels/dispatch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
#include "kernels/cpu/attention_block-inl.hpp"
#include "kernels/cpu/attention_few-inl.hpp"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {

using kernels::AttentionBackward;
using kernels::AttentionForward;

// Queries that share the packing of a key block.
inline constexpr std::int64_t kQueryChunk = 4 * kQueryBlock;
/// One chunk of queries of one head against all keys.
template <typename T>
class ForwardChunk {
 public:
  ForwardChunk(const AttentionForward& args, Scratch& scratch)
      : args_(args), sizes_(args), dropout_(args) {
    queries_ = scratch.take(kQueryChunk * sizes_.padded);
    sums_ = scratch.take(kQueryChunk * sizes_.padded);
    rows_ = scratch.take(kKeyBlock * sizes_.padded);
    keys_ = scratch.take(sizes_.padded * kKeyStride);
    scores_ = scratch.take(kQueryBlock * kKeyStride);
    factors_ = scratch.take(kKeyBlock);
    largest_ = scratch.take(kQueryChunk);
    totals_ = scratch.take(kQueryChunk);
  }
  void run(std::int64_t batch, std::int64_t head, Range queries) {
    batch_ = batch;
    head_ = head;
    const Filled filled = filled_of(args_, batch);
    const std::int64_t last = queries.first + queries.count;
    clear_results<T>(args_, sizes_, batch, head, std::max(queries.first, filled.queries), last);
    queries.count = std::min(last, filled.queries) - queries.first;
    if (queries.count > 0) compute(queries, filled.keys);
  }

 private:
  void compute(Range queries, std::int64_t keys) {
    start(queries);
    const std::int64_t seen = sizes_.visible(queries.first + queries.count - 1, {0, keys});
    for (std::int64_t k = 0; k < seen; k += kKeyBlock)
      attend(queries, block_of(k, seen, kKeyBlock));
    finish(queries);
  }

  void start(Range queries) {
    const T* q = head_start<T>(args_.q, batch_, args_.q_batch_stride, head_, sizes_);
    pack_rows(q + queries.first * args_.q_row_stride, args_.q_row_stride, queries.count, sizes_,
              args_.scale, queries_);
    std::fill_n(sums_, queries.count * sizes_.padded, 0.0f);
    std::fill_n(totals_, queries.count, 0.0f);
    std::fill_n(largest_, queries.count, -std::numeric_limits<float>::infinity());
  }

  void attend(Range queries, Range keys) {
    const std::int64_t kv_head = head_ / sizes_.group;
    const T* k = head_start<T>(args_.k, batch_, args_.k_batch_stride, kv_head, sizes_);
    const T* v = head_start<T>(args_.v, batch_, args_.v_batch_stride, kv_head, sizes_);
    pack_rows(k + keys.first * args_.k_row_stride, args_.k_row_stride, keys.count, sizes_, 1,
              rows_);
    transpose_rows(rows_, keys.count, sizes_, keys_);
    pack_rows(v + keys.first * args_.v_row_stride, args_.v_row_stride, keys.count, sizes_, 1,
              rows_);
    for (std::int64_t i = 0; i < queries.count; i += kQueryBlock) {
      const Range block = block_of(i, queries.count, kQueryBlock);
      if (sizes_.visible(queries.first + i + block.count - 1, keys) > 0)
        attend_block(queries.first, block, keys);
    }
  }

  // `block` is relative to first_query, the chunk's start.
  void attend_block(std::int64_t first_query, Range block, Range keys) {
    const auto lanes = static_cast<std::int64_t>(hn::Lanes(FloatTag()));
    const auto visible = [&](std::int64_t row) {
      return sizes_.visible(first_query + block.first + row, keys);
    };
    multiply_block(block.count, {queries_ + block.first * sizes_.padded, sizes_.padded, 1}, keys_,
                   kKeyStride, scores_, kKeyStride, false, [&](std::int64_t, std::int64_t last) {
                     return Extent{round_up(visible(last), lanes), 0, sizes_.head_dim};
                   });
    for (std::int64_t r = 0; r < block.count; ++r)
      update_row(first_query, block.first + r, visible(r), keys, scores_ + r * kKeyStride);
    multiply_block(block.count, {scores_, kKeyStride, 1}, rows_, sizes_.padded,
                   sums_ + block.first * sizes_.padded, sizes_.padded, true,
                   [&](std::int64_t, std::int64_t last) {
                     return Extent{sizes_.padded, 0, visible(last)};
                   });
  }

  // Scores become probabilities relative to the largest score so far; sums so far are scaled to it.
  void update_row(std::int64_t first_query, std::int64_t row, std::int64_t visible, Range keys,
                  float* scores) {
    std::fill(scores + visible, scores + kKeyBlock, 0.0f);
    if (visible == 0) return;
    const FloatTag tag;
    auto top = hn::Set(tag, largest_[row]);
    for_each_vector(0, visible, [&](std::int64_t s, auto extent) {
      top = hn::Max(top, inside_or_lowest(tag, hn::LoadU(tag, scores + s), extent));
    });
    const float largest = hn::GetLane(hn::MaxOfLanes(tag, top));
    const auto shift = hn::Set(tag, largest);
    auto total = hn::Zero(tag);
    for_each_vector(0, visible, [&](std::int64_t s, auto extent) {
      const auto term = exp_vector(tag, hn::Sub(hn::LoadU(tag, scores + s), shift));
      const auto inside = inside_or_zero(tag, term, extent);
      hn::StoreU(inside, tag, scores + s);
      total = hn::Add(total, inside);
    });
    if (largest != largest_[row]) rescale(row, std::exp(largest_[row] - largest));
    largest_[row] = largest;
    totals_[row] += sum_of_lanes(tag, total);
    if (dropout_.active()) drop(first_query + row, visible, keys, scores);
  }

  void rescale(std::int64_t row, float factor) {
    const FloatTag tag;
    const auto scale = hn::Set(tag, factor);
    totals_[row] *= factor;
    for_each_vector(0, sizes_.padded,
                    [=, sums = sums_ + row * sizes_.padded](std::int64_t i, auto) {
                      hn::StoreU(hn::Mul(scale, hn::LoadU(tag, sums + i)), tag, sums + i);
                    });
  }

  void drop(std::int64_t query, std::int64_t visible, Range keys, float* scores) {
    const FloatTag tag;
    dropout_.fill(batch_, head_, query, keys.first, visible, factors_);
    for_each_vector(0, visible, [&](std::int64_t s, auto) {
      const auto product = hn::Mul(hn::LoadU(tag, scores + s), hn::LoadU(tag, factors_ + s));
      hn::StoreU(product, tag, scores + s);
    });
    std::fill(scores + visible, scores + kKeyBlock, 0.0f);  // the factors' lanes beyond the end
  }

  void finish(Range queries) {
    T* y = head_start<T>(args_.y, batch_, args_.y_batch_stride, head_, sizes_);
    for (std::int64_t r = 0; r < queries.count; ++r) {
      const std::int64_t query = queries.first + r;
      unpack_rows(sums_ + r * sizes_.padded, 1, sizes_, 1 / totals_[r],
                  y + query * args_.y_row_stride, args_.y_row_stride);
      if (args_.lse)
        args_.lse[(batch_ * args_.heads + head_) * args_.queries + query] =
            largest_[r] + std::log(totals_[r]);
    }
  }

  const AttentionForward& args_;
  AttentionSizes sizes_;
  ProbabilityDropout dropout_;
  std::int64_t batch_ = 0, head_ = 0;
  float* queries_;  // [kQueryChunk, padded], scaled
  float* sums_;     // [kQueryChunk, padded]: probabilities times values
  float* rows_;     // [kKeyBlock, padded]: keys, then values
  float* keys_;     // [padded, kKeyStride]
  float* scores_;   // [kQueryBlock, kKeyStride]
  float* factors_;  // [kKeyBlock]
  float* largest_;  // [kQueryChunk]
  float* totals_;   // [kQueryChunk]
};

template <typename T>
void forward_typed(const AttentionForward& args) {
  if (args.queries <= kFewQueries) {
    with_workers<FewQueries<T>>(args, [&](FewQueries<T>& worker) {
#pragma omp for schedule(dynamic) collapse(2)
      for (std::int64_t b = 0; b < args.batch; ++b)
        for (std::int64_t h = 0; h < args.heads; ++h) worker.run(b, h);
    });
    return;
  }
  const std::int64_t chunks = ceil_divide(args.queries, kQueryChunk);
  with_workers<ForwardChunk<T>>(args, [&](ForwardChunk<T>& worker) {
#pragma omp for schedule(dynamic) collapse(3)
    for (std::int64_t b = 0; b < args.batch; ++b)
      for (std::int64_t h = 0; h < args.heads; ++h)
        for (std::int64_t c = 0; c < chunks; ++c)
          worker.run(b, h, block_of(c * kQueryChunk, args.queries, kQueryChunk));
  });
}

void attention_forward_cpu(const AttentionForward& args) {
  kernels::dispatch_float(args.dtype, "attention", [&]<typename T>(T) { forward_typed<T>(args); });
}

/// One key and value head of one batch entry: the queries of all its heads against all keys.
/// Everything that adds into one gradient is one task in a fixed order, so that the bits do not
/// depend on the number of threads.
template <typename T>
class BackwardHead {
 public:
  BackwardHead(const AttentionBackward& args, Scratch& scratch)
      : args_(args), forward_(args.forward), sizes_(args.forward), dropout_(args.forward) {
    const std::int64_t query_size = forward_.queries * sizes_.padded;
    const std::int64_t key_size = forward_.keys * sizes_.padded;
    q_ = scratch.take(query_size);
    dy_ = scratch.take(query_size);
    dq_ = scratch.take(query_size);
    dk_ = scratch.take(key_size);
    dv_ = scratch.take(key_size);
    shifts_ = scratch.take(forward_.queries);
    k_ = scratch.take(kKeyBlock * sizes_.padded);
    v_ = scratch.take(kKeyBlock * sizes_.padded);
    k_columns_ = scratch.take(sizes_.padded * kKeyStride);
    v_columns_ = scratch.take(sizes_.padded * kKeyStride);
    p_ = scratch.take(kQueryBlock * kKeyStride);
    ds_ = scratch.take(kQueryBlock * kKeyStride);
    factors_ = scratch.take(kKeyBlock);
  }
  void run(std::int64_t batch, std::int64_t kv_head) {
    batch_ = batch;
    filled_ = filled_of(forward_, batch);
    std::fill_n(factors_, kKeyBlock, 1.0f);
    std::fill_n(dk_, filled_.keys * sizes_.padded, 0.0f);
    std::fill_n(dv_, filled_.keys * sizes_.padded, 0.0f);
    for (head_ = kv_head * sizes_.group; head_ < (kv_head + 1) * sizes_.group; ++head_) {
      start_head();
      for (std::int64_t k = 0; k < filled_.keys; k += kKeyBlock)
        visit_keys(kv_head, block_of(k, filled_.keys, kKeyBlock));
      store_head(dq_, filled_.queries, forward_.queries, forward_.scale,
                 head_start<T>(args_.dq, batch_, forward_.q_batch_stride, head_, sizes_),
                 forward_.q_row_stride);
    }
    store_head(dk_, filled_.keys, forward_.keys, 1,
               head_start<T>(args_.dk, batch_, forward_.k_batch_stride, kv_head, sizes_),
               forward_.k_row_stride);
    store_head(dv_, filled_.keys, forward_.keys, 1,
               head_start<T>(args_.dv, batch_, forward_.v_batch_stride, kv_head, sizes_),
               forward_.v_row_stride);
  }

 private:
  /// The rows that were summed, and zeros for the padding behind them.
  void store_head(const float* sums, std::int64_t filled, std::int64_t rows, float factor,
                  T* target, std::int64_t stride) const {
    unpack_rows(sums, filled, sizes_, factor, target, stride);
    clear_rows(target, stride, filled, rows, sizes_);
  }

  void start_head() {
    const T* q = head_start<T>(forward_.q, batch_, forward_.q_batch_stride, head_, sizes_);
    const T* y = head_start<T>(forward_.y, batch_, forward_.y_batch_stride, head_, sizes_);
    const T* dy = head_start<T>(args_.dy, batch_, forward_.y_batch_stride, head_, sizes_);
    pack_rows(q, forward_.q_row_stride, filled_.queries, sizes_, forward_.scale, q_);
    pack_rows(dy, forward_.y_row_stride, filled_.queries, sizes_, 1, dy_);
    std::fill_n(dq_, filled_.queries * sizes_.padded, 0.0f);
    // The sum over keys of probability times its gradient equals dy . y.
    const FloatTag tag;
    for (std::int64_t t = 0; t < filled_.queries; ++t) {
      auto sum = hn::Zero(tag);
      for_each_vector(0, sizes_.head_dim, [&](std::int64_t i, auto extent) {
        sum = hn::MulAdd(load(tag, y + t * forward_.y_row_stride + i, extent),
                         hn::LoadU(tag, dy_ + t * sizes_.padded + i), sum);
      });
      shifts_[t] = sum_of_lanes(tag, sum);
    }
  }

  void visit_keys(std::int64_t kv_head, Range keys) {
    const T* k = head_start<T>(forward_.k, batch_, forward_.k_batch_stride, kv_head, sizes_);
    const T* v = head_start<T>(forward_.v, batch_, forward_.v_batch_stride, kv_head, sizes_);
    pack_rows(k + keys.first * forward_.k_row_stride, forward_.k_row_stride, keys.count, sizes_, 1,
              k_);
    pack_rows(v + keys.first * forward_.v_row_stride, forward_.v_row_stride, keys.count, sizes_, 1,
              v_);
    transpose_rows(k_, keys.count, sizes_, k_columns_);
    transpose_rows(v_, keys.count, sizes_, v_columns_);
    const std::int64_t first = sizes_.first_query(keys.first) / kQueryBlock * kQueryBlock;
    for (std::int64_t t = first; t < filled_.queries; t += kQueryBlock)
      visit_block(block_of(t, filled_.queries, kQueryBlock), keys);
  }

  void visit_block(Range queries, Range keys) {
    const auto lanes = static_cast<std::int64_t>(hn::Lanes(FloatTag()));
    const std::int64_t width = sizes_.padded;
    const auto visible = [&](std::int64_t row) {
      return sizes_.visible(queries.first + row, keys);
    };
    const auto scores_extent = [&](std::int64_t, std::int64_t last) {
      return Extent{round_up(visible(last), lanes), 0, sizes_.head_dim};
    };
    const LeftOperand q{q_ + queries.first * width, width, 1};
    const LeftOperand dy{dy_ + queries.first * width, width, 1};
    multiply_block(queries.count, q, k_columns_, kKeyStride, p_, kKeyStride, false, scores_extent);
    multiply_block(queries.count, dy, v_columns_, kKeyStride, ds_, kKeyStride, false,
                   scores_extent);
    for (std::int64_t r = 0; r < queries.count; ++r)
      differentiate_row(queries.first + r, visible(r), keys, p_ + r * kKeyStride,
                        ds_ + r * kKeyStride);
    // Keys are the rows of the transposed products; queries before the first that sees a group of
    // keys add nothing.
    const auto keys_extent = [&](std::int64_t first, std::int64_t) {
      const std::int64_t begin = sizes_.first_query(keys.first + first) - queries.first;
      return Extent{width, std::clamp<std::int64_t>(begin, 0, queries.count), queries.count};
    };
    multiply_block(keys.count, {p_, 1, kKeyStride}, dy.data, width, dv_ + keys.first * width, width,
                   true, keys_extent);
    multiply_block(keys.count, {ds_, 1, kKeyStride}, q.data, width, dk_ + keys.first * width, width,
                   true, keys_extent);
    multiply_block(queries.count, {ds_, kKeyStride, 1}, k_, width, dq_ + queries.first * width,
                   width, true, [&](std::int64_t, std::int64_t last) {
                     return Extent{width, 0, visible(last)};
                   });
  }

  // In: scores and gradients of the dropped probabilities. Out: dropped probabilities, and
  // gradients of the scores.
  void differentiate_row(std::int64_t query, std::int64_t visible, Range keys, float* p,
                         float* ds) {
    const FloatTag tag;
    const auto lse =
        hn::Set(tag, forward_.lse[(batch_ * forward_.heads + head_) * forward_.queries + query]);
    const auto shift = hn::Set(tag, shifts_[query]);
    if (dropout_.active() && visible > 0)
      dropout_.fill(batch_, head_, query, keys.first, visible, factors_);
    for_each_vector(0, visible, [&](std::int64_t s, auto extent) {
      const auto factor = hn::LoadU(tag, factors_ + s);
      const auto probability = exp_vector(tag, hn::Sub(hn::LoadU(tag, p + s), lse));
      const auto slope = hn::MulSub(hn::LoadU(tag, ds + s), factor, shift);
      hn::StoreU(inside_or_zero(tag, hn::Mul(probability, factor), extent), tag, p + s);
      hn::StoreU(inside_or_zero(tag, hn::Mul(probability, slope), extent), tag, ds + s);
    });
    const std::int64_t done = round_up(visible, static_cast<std::int64_t>(hn::Lanes(tag)));
    std::fill(p + done, p + kKeyBlock, 0.0f);
    std::fill(ds + done, ds + kKeyBlock, 0.0f);
  }

  const AttentionBackward& args_;
  const AttentionForward& forward_;
  AttentionSizes sizes_;
  ProbabilityDropout dropout_;
  std::int64_t batch_ = 0, head_ = 0;
  Filled filled_;
  float *q_, *dy_, *dq_;           // [queries, padded]; q scaled
  float *dk_, *dv_;                // [keys, padded]
  float* shifts_;                  // [queries]
  float *k_, *v_;                  // [kKeyBlock, padded]
  float *k_columns_, *v_columns_;  // [padded, kKeyStride]
  float *p_, *ds_;                 // [kQueryBlock, kKeyStride]
  float* factors_;                 // [kKeyBlock]
};

template <typename T>
void backward_typed(const AttentionBackward& args) {
  with_workers<BackwardHead<T>>(args, [&](BackwardHead<T>& worker) {
#pragma omp for schedule(dynamic) collapse(2)
    for (std::int64_t b = 0; b < args.forward.batch; ++b)
      for (std::int64_t h = 0; h < args.forward.kv_heads; ++h) worker.run(b, h);
  });
}

void attention_backward_cpu(const AttentionBackward& args) {
  kernels::dispatch_float(args.forward.dtype, "attention",
                          [&]<typename T>(T) { backward_typed<T>(args); });
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(attention_forward_cpu);
HWY_EXPORT(attention_backward_cpu);

}  // namespace

namespace kernels::cpu {
namespace {

AttentionForward with_variables(AttentionForward args) {
  if (args.variables == nullptr) return args;
  args.dropout_stream = mix(args.variables->step, args.dropout_stream);
  args.batch_offset += args.variables->first_row;
  return args;
}

}  // namespace

void attention_forward(const AttentionForward& args) {
  HWY_DYNAMIC_DISPATCH(attention_forward_cpu)(with_variables(args));
}

void attention_backward(const AttentionBackward& args) {
  AttentionBackward now = args;
  now.forward = with_variables(args.forward);
  HWY_DYNAMIC_DISPATCH(attention_backward_cpu)(now);
}

}  // namespace kernels::cpu
}  // namespace tessera
#endif
