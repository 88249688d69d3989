// SPDX-License-Identifier: Apache-2.0
// Attention on CUDA: blocks of queries walk over tiles of keys with an online softmax; few queries
// share the keys among blocks, whose parts a second kernel joins in order.
#include <algorithm>
#include <cuda_runtime_api.h>
#include <limits>
#include <string>
#include <type_traits>

#include "tessera/base/error.hpp"
#include "tessera/base/shape.hpp"
#include "tessera/device/buffer.hpp"
#include "tessera/device/cuda.hpp"

#include "device/cuda/launch.hpp"
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/shared_memory.cuh"

namespace tessera::kernels::cuda {
namespace {

template <typename T, int kDim>
struct ForwardShape {
  static constexpr bool kWide = kDim > 128, kSingle = sizeof(T) == 4;
  static constexpr int kWarps = kWide && kSingle ? 2 : 4;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kRows = kWarpRows * kWarps;
  static constexpr int kKeys = kWide ? (kSingle ? 16 : 32) : (kSingle ? 32 : 64);
  static constexpr int kStride = kTileStride<T, kDim>;
  using Left = LeftOperand<T, kKeys>;
  static constexpr std::size_t kTileBytes =
      static_cast<std::size_t>(kRows + 2 * kKeys) * kStride * sizeof(T);
  static constexpr std::size_t kBytes =
      kTileBytes + static_cast<std::size_t>(kWarps * Left::kSharedElements) * sizeof(float);
};

struct ForwardPlan {
  AttentionCall call;
  int heads_together;  // heads of one group whose queries are rows of one block
  int row_blocks;      // blocks along the rows
  int splits;          // blocks along the keys
  int keys_per_split;
  float* part_sums;     // [splits, batch, heads, queries, head_dim], not divided by the totals
  float* part_largest;  // [splits, batch, heads, queries], in powers of two
  float* part_totals;
};

/// One block: kRows queries of a head (or of several heads of a group) against a range of keys.
template <typename T, int kDim>
class ForwardBlock {
  using Shape = ForwardShape<T, kDim>;
  static constexpr int kKeyTiles = Shape::kKeys / 8, kDimTiles = kDim / 8;

 public:
  __device__ __forceinline__ ForwardBlock(const ForwardPlan& plan, unsigned char* memory)
      : plan_(plan),
        call_(plan.call),
        q_(reinterpret_cast<T*>(memory)),
        k_(q_ + Shape::kRows * Shape::kStride),
        v_(k_ + Shape::kKeys * Shape::kStride),
        left_(reinterpret_cast<float*>(memory + Shape::kTileBytes) +
              warp() * Shape::Left::kSharedElements),
        dropout_(plan.call.args),
        batch_(blockIdx.z),
        filled_(plan.call.filled(batch_)),
        first_head_(static_cast<int>(blockIdx.y) * plan.heads_together),
        split_(static_cast<int>(blockIdx.x) / plan.row_blocks) {
    // The last rows see the most keys: they begin first.
    first_row_ =
        (plan.row_blocks - 1 - static_cast<int>(blockIdx.x) % plan.row_blocks) * Shape::kRows;
    rows_ = plan.heads_together * call_.queries;
    for (int i = 0; i < 2; ++i) {
      const int row = first_row_ + warp() * kWarpRows + lane_row() + i * 8;
      valid_[i] = row < rows_;
      head_[i] = first_head_ + (plan.heads_together > 1 ? row / call_.queries : 0);
      query_[i] = plan.heads_together > 1 ? row % call_.queries : row;
      visible_[i] = call_.visible(query_[i], filled_);
      largest_[i] = -INFINITY;
      total_[i] = 0;
    }
    sums_.clear();
  }

  __device__ __forceinline__ void run() {
    const int begin = split_ * plan_.keys_per_split;
    const int end = min(most_visible(), begin + plan_.keys_per_split);
    const bool busy = first_row_ + warp() * kWarpRows < rows_;
    load_queries();
    if (begin < end) load_keys(begin, end);
    for (int key = begin; key < end; key += Shape::kKeys) {
      wait_for_copies();
      __syncthreads();  // keys have come, values of the tile before are done with
      load_values(key, end);
      Sums<kKeyTiles> scores;
      if (busy) {
        scores.clear();
        multiply_transposed<kDim, Shape::kStride>(scores, q_ + warp() * kWarpRows * Shape::kStride,
                                                  k_);
        weigh(scores, key);
      }
      wait_for_copies();
      __syncthreads();  // values have come, keys are done with
      if (key + Shape::kKeys < end) load_keys(key + Shape::kKeys, end);
      if (busy) {
        left_.set(scores);
        left_.multiply(sums_, v_, Shape::kStride);
      }
    }
    if (busy) finish();
  }

 private:
  static __device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / 32; }

  /// Of the block's last query that is no padding; none, where all are.
  __device__ __forceinline__ int most_visible() const {
    if (plan_.heads_together > 1) return call_.visible(filled_.queries - 1, filled_);
    if (first_row_ >= filled_.queries) return 0;
    return call_.visible(min(first_row_ + Shape::kRows, filled_.queries) - 1, filled_);
  }
  __device__ __forceinline__ void load_queries() {
    const T* q = static_cast<const T*>(call_.args.q) + batch_ * call_.args.q_batch_stride;
    load_tile<Shape::kRows, kDim, Shape::kThreads>(
        q_, call_.head_dim, call_.vectors, [&](int row) -> const T* {
          const int index = first_row_ + row;
          if (index >= rows_) return nullptr;
          const bool together = plan_.heads_together > 1;
          const int head = first_head_ + (together ? index / call_.queries : 0);
          const int query = together ? index % call_.queries : index;
          return q + query * call_.args.q_row_stride + head * call_.head_dim;
        });
  }
  __device__ __forceinline__ void load_rows(T* tile, const void* data, std::int64_t batch_stride,
                                            std::int64_t row_stride, int key, int end) {
    const T* head = head_start(static_cast<const T*>(data), batch_, batch_stride,
                               first_head_ / call_.group, call_.head_dim);
    load_tile<Shape::kKeys, kDim, Shape::kThreads>(
        tile, call_.head_dim, call_.vectors, [&](int row) -> const T* {
          return key + row < end ? head + (key + row) * row_stride : nullptr;
        });
  }
  __device__ __forceinline__ void load_keys(int key, int end) {
    load_rows(k_, call_.args.k, call_.args.k_batch_stride, call_.args.k_row_stride, key, end);
  }
  __device__ __forceinline__ void load_values(int key, int end) {
    load_rows(v_, call_.args.v, call_.args.v_batch_stride, call_.args.v_row_stride, key, end);
  }

  /// Scores become probabilities relative to the largest score so far; what was summed so far is
  /// scaled to it.
  __device__ __forceinline__ void weigh(Sums<kKeyTiles>& scores, int key) {
    const float to_log2 = call_.args.scale * kLog2E;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int visible = visible_[i] - key - lane_column();
      float largest = largest_[i];
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n)
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          float& score = scores.tiles[n][i * 2 + j];
          score = n * 8 + j < visible ? score * to_log2 : -INFINITY;
          largest = fmaxf(largest, score);
        }
      largest = row_max(largest);
      const float shift = largest == -INFINITY ? 0.0f : largest;  // nothing seen yet
      float total = 0;
#pragma unroll
      for (int n = 0; n < kKeyTiles; ++n)
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          float& score = scores.tiles[n][i * 2 + j];
          score = exp2f(score - shift);
          total += score;
        }
      rescale(i, exp2f(largest_[i] - shift));
      largest_[i] = largest;
      total_[i] += total;
    }
    if (call_.args.dropout > 0) drop(scores, key);
  }
  __device__ __forceinline__ void rescale(int i, float factor) {
    total_[i] *= factor;
#pragma unroll
    for (int n = 0; n < kDimTiles; ++n) {
      sums_.tiles[n][i * 2] *= factor;
      sums_.tiles[n][i * 2 + 1] *= factor;
    }
  }
  __device__ __forceinline__ void drop(Sums<kKeyTiles>& scores, int key) {
    const auto column = static_cast<std::uint64_t>(key + lane_column());
    const std::uint64_t upper = first_element(call_.args, batch_, head_[0], query_[0]) + column;
    const std::uint64_t lower = first_element(call_.args, batch_, head_[1], query_[1]) + column;
#pragma unroll
    for (int n = 0; n < kKeyTiles; ++n) {
      const auto skipped = static_cast<std::uint64_t>(n * 8);
      float factors[4];
      dropout_.by_query(factors, upper + skipped, lower + skipped);
#pragma unroll
      for (int i = 0; i < 4; ++i) scores.tiles[n][i] *= factors[i];
    }
  }

  __device__ __forceinline__ void finish() {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float total = row_sum(total_[i]);  // by all lanes
      if (!valid_[i]) continue;
      const std::int64_t row = call_.row(batch_, head_[i], query_[i]);
      if (plan_.splits > 1)
        store_part(i, total, split_ * call_.args.batch * call_.args.heads * call_.queries + row);
      else
        store_row(i, total, row);
    }
  }
  __device__ __forceinline__ void store_row(int i, float total, std::int64_t row) {
    T* y = head_start(static_cast<T*>(call_.args.y), batch_, call_.args.y_batch_stride, head_[i],
                      call_.head_dim) +
           query_[i] * call_.args.y_row_stride;
    const bool padding = visible_[i] == 0;
    const float factor = 1.0f / total;
#pragma unroll
    for (int n = 0; n < kDimTiles; ++n)
      store_two(y, n * 8 + lane_column(), call_.head_dim, call_.pairs,
                padding ? 0.0f : sums_.tiles[n][i * 2] * factor,
                padding ? 0.0f : sums_.tiles[n][i * 2 + 1] * factor);
    if (call_.args.lse != nullptr && lane_column() == 0)
      call_.args.lse[row] = padding ? 0.0f : largest_[i] * kLn2 + logf(total);
  }
  __device__ __forceinline__ void store_part(int i, float total, std::int64_t row) {
    float* sums = plan_.part_sums + row * call_.head_dim;
#pragma unroll
    for (int n = 0; n < kDimTiles; ++n)
      store_two(sums, n * 8 + lane_column(), call_.head_dim, false, sums_.tiles[n][i * 2],
                sums_.tiles[n][i * 2 + 1]);
    if (lane_column() != 0) return;
    plan_.part_largest[row] = largest_[i];
    plan_.part_totals[row] = total;
  }

  const ForwardPlan& plan_;
  const AttentionCall& call_;
  T *q_, *k_, *v_;  // tiles in shared memory
  typename Shape::Left left_;
  DropoutFactors dropout_;
  std::int64_t batch_;
  AttentionCall::Filled filled_;
  int first_head_, split_, first_row_, rows_;
  // Of the lane's two rows:
  bool valid_[2];
  int head_[2], query_[2], visible_[2];
  float largest_[2], total_[2];  // total_: of the lane's own columns
  Sums<kDimTiles> sums_;
};

template <typename T, int kDim>
__global__ void __launch_bounds__(ForwardShape<T, kDim>::kThreads)
    attention_forward_kernel(const ForwardPlan plan) {
  DYNAMIC_SHARED(unsigned char, memory);
  ForwardBlock<T, kDim>(plan, memory).run();
}

/// Joins the parts of one row, a warp for each, in the order of the keys.
template <typename T>
__global__ void __launch_bounds__(128) attention_join_kernel(const ForwardPlan plan) {
  const AttentionCall& call = plan.call;
  const std::int64_t rows = call.args.batch * call.args.heads * call.queries;
  const std::int64_t row = std::int64_t{blockIdx.x} * 4 + threadIdx.x / 32;
  if (row >= rows) return;
  float largest = -INFINITY, total = 0;
  for (int s = 0; s < plan.splits; ++s) largest = fmaxf(largest, plan.part_largest[s * rows + row]);
  for (int s = 0; s < plan.splits; ++s)
    total += plan.part_totals[s * rows + row] * exp2f(plan.part_largest[s * rows + row] - largest);
  const std::int64_t query = row % call.queries, head = row / call.queries % call.args.heads;
  T* y = head_start(static_cast<T*>(call.args.y), row / call.queries / call.args.heads,
                    call.args.y_batch_stride, head, call.head_dim) +
         query * call.args.y_row_stride;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int i = lane; i < call.head_dim; i += 32) {
    float sum = 0;
    for (int s = 0; s < plan.splits; ++s)
      sum += plan.part_sums[(s * rows + row) * call.head_dim + i] *
             exp2f(plan.part_largest[s * rows + row] - largest);
    y[i] = static_cast<T>(sum / total);
  }
  if (call.args.lse != nullptr && lane == 0) call.args.lse[row] = largest * kLn2 + logf(total);
}

int multiprocessors(int device) {
  int count = 0;
  tessera::cuda::check_cuda(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
                            "ask for the number of multiprocessors");
  return count;
}

/// Splits the keys when the rows alone would leave most of the device idle.
void choose_splits(ForwardPlan& plan, std::int64_t blocks, int tile, int device) {
  const int tiles = static_cast<int>(ceil_divide(plan.call.keys, tile));
  const std::int64_t wanted = 2 * multiprocessors(device) / std::max<std::int64_t>(1, blocks);
  const auto splits = std::clamp<std::int64_t>(std::min<std::int64_t>(wanted, tiles / 4), 1, 64);
  const std::int64_t tiles_each = ceil_divide(tiles, splits);
  plan.keys_per_split = static_cast<int>(tiles_each) * tile;
  plan.splits = static_cast<int>(ceil_divide(tiles, tiles_each));
}

template <typename T, int kDim>
void forward(const Stream& stream, const AttentionForward& args) {
  using Shape = ForwardShape<T, kDim>;
  ForwardPlan plan{};
  plan.call = attention_call(args);
  const std::int64_t group_rows = plan.call.group * args.queries;
  plan.heads_together = group_rows <= Shape::kRows ? plan.call.group : 1;
  plan.row_blocks =
      static_cast<int>(ceil_divide(plan.heads_together * args.queries, std::int64_t{Shape::kRows}));
  const std::int64_t head_blocks = args.heads / plan.heads_together;
  plan.keys_per_split = plan.call.keys;
  plan.splits = 1;  // and with lengths it stays: so few queries come with so few keys
  if (plan.row_blocks == 1)
    choose_splits(plan, head_blocks * args.batch, Shape::kKeys, stream.device().index);
  const std::int64_t rows = plan.splits > 1 ? args.batch * args.heads * args.queries : 0;
  const std::int64_t part = plan.splits * rows;
  const Buffer parts =
      allocate(static_cast<std::size_t>(part * (args.head_dim + 2)) * sizeof(float),
               stream.device(), Purpose::workspace);
  plan.part_sums = parts.as<float>();
  plan.part_largest = plan.part_sums + part * args.head_dim;
  plan.part_totals = plan.part_largest + part;
  const dim3 grid(static_cast<unsigned>(plan.row_blocks * plan.splits),
                  static_cast<unsigned>(head_blocks), static_cast<unsigned>(args.batch));
  tessera::cuda::launch<attention_forward_kernel<T, kDim>>(stream, grid, dim3(Shape::kThreads),
                                                           Shape::kBytes, plan);
  tessera::cuda::launch<attention_join_kernel<T>>(
      stream, dim3(static_cast<unsigned>(ceil_divide(rows, std::int64_t{4}))), dim3(128), 0, plan);
}

}  // namespace

bool rows_aligned(const void* data, std::int64_t row_stride, std::int64_t batch_stride, DType dtype,
                  std::size_t bytes) {
  const std::size_t size = size_of(dtype);
  return reinterpret_cast<std::uintptr_t>(data) % bytes == 0 &&
         static_cast<std::size_t>(row_stride) * size % bytes == 0 &&
         static_cast<std::size_t>(batch_stride) * size % bytes == 0;
}

AttentionCall attention_call(const AttentionForward& args) {
  constexpr std::int64_t kLongest = std::numeric_limits<int>::max() / 512;
  TESSERA_CHECK(args.queries <= kLongest && args.keys <= kLongest, Code::not_supported,
                "attention on CUDA takes at most " + std::to_string(kLongest) + " positions, not " +
                    std::to_string(std::max(args.queries, args.keys)));
  TESSERA_CHECK(args.batch <= 65535 && args.heads <= 65535, Code::not_supported,
                "attention on CUDA takes at most 65535 sequences and heads, not " +
                    std::to_string(std::max(args.batch, args.heads)));
  AttentionCall call{};
  call.args = args;
  call.queries = static_cast<int>(args.queries);
  call.keys = static_cast<int>(args.keys);
  call.head_dim = static_cast<int>(args.head_dim);
  call.group = static_cast<int>(args.heads / args.kv_heads);
  call.first_position = call.keys - call.queries;
  const auto aligned = [&](const void* data, std::int64_t row, std::int64_t batch) {
    return rows_aligned(data, row, batch, args.dtype, 16);
  };
  call.vectors = aligned(args.q, args.q_row_stride, args.q_batch_stride) &&
                 aligned(args.k, args.k_row_stride, args.k_batch_stride) &&
                 aligned(args.v, args.v_row_stride, args.v_batch_stride) &&
                 static_cast<std::size_t>(args.head_dim) * size_of(args.dtype) % 16 == 0;
  call.pairs =
      args.head_dim % 2 == 0 && rows_aligned(args.y, args.y_row_stride, args.y_batch_stride,
                                             args.dtype, 2 * size_of(args.dtype));
  return call;
}

void attention_forward(const Stream& stream, const AttentionForward& args) {
  const StreamScope scope(stream);  // of the workspace
  dispatch_attention(args, [&]<typename T, int kDim>(T, std::integral_constant<int, kDim>) {
    forward<T, kDim>(stream, args);
  });
}

}  // namespace tessera::kernels::cuda
