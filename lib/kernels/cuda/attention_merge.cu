// SPDX-License-Identifier: Apache-2.0
// Attention over keys that come in parts, on a GPU: the results, then the numbers that weigh them.
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/pack.cuh"

namespace tessera::kernels::cuda {
namespace {

__device__ __forceinline__ float merged_lse(float a, float b) {
  const float largest = fmaxf(a, b);
  return largest + logf(expf(a - largest) + expf(b - largest));
}

template <typename T>
struct MergeResults {
  static constexpr int kWidth = 1;
  const T* part;
  const float* part_lse;
  float* sum;
  const float* lse;
  bool first;
  std::int64_t queries, heads, head_dim;

  template <int N>
  __device__ void operator()(std::int64_t i, Width<N>) const {
    const float added = to_float(part[i]);
    if (first) {
      sum[i] = added;
      return;
    }
    const std::int64_t place = i / head_dim, row = place / heads, head = place - row * heads;
    const std::int64_t batch = row / queries, query = row - batch * queries;
    const std::int64_t number = (batch * heads + head) * queries + query;
    const float whole = merged_lse(lse[number], part_lse[number]);
    sum[i] = expf(lse[number] - whole) * sum[i] + expf(part_lse[number] - whole) * added;
  }
};

struct MergeNumbers {
  static constexpr int kWidth = 1;
  const float* part_lse;
  float* lse;
  bool first;

  template <int N>
  __device__ void operator()(std::int64_t i, Width<N>) const {
    lse[i] = first ? part_lse[i] : merged_lse(lse[i], part_lse[i]);
  }
};

}  // namespace

void attention_merge(const Stream& stream, const AttentionMerge& args) {
  dispatch_type(args.dtype, "attention_merge", [&]<typename T>(T) {
    const MergeResults<T> results{.part = static_cast<const T*>(args.part),
                                  .part_lse = args.part_lse,
                                  .sum = args.sum,
                                  .lse = args.lse,
                                  .first = args.first,
                                  .queries = args.queries,
                                  .heads = args.heads,
                                  .head_dim = args.head_dim};
    launch_elementwise(stream, results, args.batch * args.queries * args.heads * args.head_dim,
                       false);
  });
  const MergeNumbers numbers{.part_lse = args.part_lse, .lse = args.lse, .first = args.first};
  launch_elementwise(stream, numbers, args.batch * args.heads * args.queries, false);
}

}  // namespace tessera::kernels::cuda
