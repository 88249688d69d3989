// SPDX-License-Identifier: Apache-2.0
// Attention over keys that come in parts, on the CPU.
#include "tessera/kernels/attention_merge.hpp"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cuda/operations.hpp"
#include "kernels/dispatch.hpp"

namespace tessera::kernels {
namespace {

/// What both results count in the whole.
struct Weights {
  float before, part;
};

Weights merge_lse(float& lse, float part_lse, bool first) {
  if (first) {
    lse = part_lse;
    return {0, 1};
  }
  const float largest = std::max(lse, part_lse);
  const float whole = largest + std::log(std::exp(lse - largest) + std::exp(part_lse - largest));
  const Weights weights{std::exp(lse - whole), std::exp(part_lse - whole)};
  lse = whole;
  return weights;
}

template <typename T>
float widened(const T& x) {
  if constexpr (std::is_same_v<T, float>)
    return x;
  else
    return x.to_float();
}

template <typename T>
void merge(const AttentionMerge& args) {
  const auto merge_head = [&](std::int64_t row, std::int64_t head) {
    const std::int64_t b = row / args.queries, query = row % args.queries;
    const std::int64_t number = (b * args.heads + head) * args.queries + query;
    const Weights weights = merge_lse(args.lse[number], args.part_lse[number], args.first);
    const std::int64_t begin = (row * args.heads + head) * args.head_dim;
    const T* part = static_cast<const T*>(args.part) + begin;
    float* sum = args.sum + begin;
    for (std::int64_t i = 0; i < args.head_dim; ++i) {
      const float added = weights.part * widened(part[i]);
      sum[i] = args.first ? added : weights.before * sum[i] + added;
    }
  };
  parallel_rows(args.batch * args.queries, args.heads * args.head_dim,
                [&](std::int64_t begin, std::int64_t end) {
                  for (std::int64_t row = begin; row < end; ++row)
                    for (std::int64_t head = 0; head < args.heads; ++head) merge_head(row, head);
                });
}

}  // namespace

void attention_merge(const Stream& stream, const AttentionMerge& args) {
  if (args.batch == 0 || args.queries == 0) return;
  if (!stream.device().is_cpu()) return cuda::attention_merge(stream, args);
  dispatch_float(args.dtype, "attention_merge", [&]<typename T>(T) { merge<T>(args); });
}

}  // namespace tessera::kernels
