// SPDX-License-Identifier: Apache-2.0
// Gradients of attention on CUDA: probabilities are computed again from q, k and lse; one kernel
// sums over queries for dk and dv, another over keys for dq, both in a fixed order.
#include <cstdint>
#include <cuda_runtime_api.h>
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

struct BackwardPlan {
  AttentionCall call;
  const void* dy;
  void *dq, *dk, *dv;
  float* shifts;  // [batch, heads, queries]: sum of dy y over the head
  int slices;     // blocks that share the columns of dk and dv
};

/// A block owns kRows rows (keys for dk and dv, queries for dq) and walks over tiles of kOthers:
/// one is worked on while the next is on its way.
template <typename T, int kDim>
struct BackwardShape {
  static constexpr bool kWide = kDim > 128, kSingle = sizeof(T) == 4;
  static constexpr int kWarps = kWide && kSingle ? 2 : 4;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kRows = kWarpRows * kWarps;
  static constexpr int kOthers = kWide && kSingle ? 16 : kWide || kDim == 128 || kSingle ? 32 : 64;
  static constexpr int kStride = kTileStride<T, kDim>;
  static constexpr int kSlice = kDim < 128 ? kDim : 128;  // columns of dk and dv in registers
  using Left = LeftOperand<T, kOthers>;
  static constexpr int kOtherElements = kOthers * kStride;
  static constexpr std::size_t kTileBytes =
      static_cast<std::size_t>(2 * kRows + 4 * kOthers) * kStride * sizeof(T);
  static constexpr std::size_t kLeftBytes =
      static_cast<std::size_t>(kWarps * Left::kSharedElements) * sizeof(float);
  // The tiles of queries come with their lse and shift.
  static constexpr std::size_t kBytes = kTileBytes + kLeftBytes + 4 * kOthers * sizeof(float);
};

__device__ __forceinline__ int warp() {
  return static_cast<int>(threadIdx.x) / 32;
}

/// Stores the rows of a warp that lie before `end`, times `factor`, and zeros from `filled` on;
/// `rows` is row 0.
template <typename T, int kTiles>
__device__ __forceinline__ void store_rows(const Sums<kTiles>& sums, T* rows, std::int64_t stride,
                                           int first, int filled, int end, int column, int head_dim,
                                           bool pairs, float factor) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = first + lane_row() + i * 8;
    if (row >= end) continue;
    const bool padding = row >= filled;
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
      store_two(rows + row * stride, column + n * 8 + lane_column(), head_dim, pairs,
                padding ? 0.0f : sums.tiles[n][i * 2] * factor,
                padding ? 0.0f : sums.tiles[n][i * 2 + 1] * factor);
  }
}

/// Loads rows [first, end) of one head into a tile of kRows.
template <int kRows, typename Shape, int kDim, typename T>
__device__ __forceinline__ void load_head(T* tile, const AttentionCall& call, const void* data,
                                          std::int64_t batch_stride, std::int64_t row_stride,
                                          std::int64_t batch, int head, int first, int end) {
  const T* start =
      head_start(static_cast<const T*>(data), batch, batch_stride, head, call.head_dim);
  load_tile<kRows, kDim, Shape::kThreads>(
      tile, call.head_dim, call.vectors, [&](int row) -> const T* {
        return first + row < end ? start + (first + row) * row_stride : nullptr;
      });
}

/// dk and dv of kRows keys of one key and value head, or of a slice of their columns.
template <typename T, int kDim>
class KeyBlock {
  using Shape = BackwardShape<T, kDim>;
  static constexpr int kTiles = Shape::kOthers / 8, kSliceTiles = Shape::kSlice / 8;

 public:
  __device__ __forceinline__ KeyBlock(const BackwardPlan& plan, unsigned char* memory)
      : plan_(plan),
        call_(plan.call),
        k_(reinterpret_cast<T*>(memory)),
        v_(k_ + Shape::kRows * Shape::kStride),
        q_(v_ + Shape::kRows * Shape::kStride),
        dy_(q_ + 2 * Shape::kOtherElements),
        lse_(reinterpret_cast<float*>(memory + Shape::kTileBytes + Shape::kLeftBytes)),
        shifts_(lse_ + 2 * Shape::kOthers),
        left_(reinterpret_cast<float*>(memory + Shape::kTileBytes) +
              warp() * Shape::Left::kSharedElements),
        dropout_(plan.call.args),
        batch_(blockIdx.z),
        filled_(plan.call.filled(batch_)),
        kv_head_(static_cast<int>(blockIdx.y)),
        first_key_(static_cast<int>(blockIdx.x) / plan.slices * Shape::kRows),
        column_(static_cast<int>(blockIdx.x) % plan.slices * Shape::kSlice) {
    dk_.clear();
    dv_.clear();
  }

  __device__ __forceinline__ void run() {
    const AttentionForward& args = call_.args;
    load_head<Shape::kRows, Shape, kDim>(k_, call_, args.k, args.k_batch_stride, args.k_row_stride,
                                         batch_, kv_head_, first_key_, filled_.keys);
    load_head<Shape::kRows, Shape, kDim>(v_, call_, args.v, args.v_batch_stride, args.v_row_stride,
                                         batch_, kv_head_, first_key_, filled_.keys);
    const int first = call_.first_query(first_key_) / Shape::kOthers * Shape::kOthers;
    const int queries = first_key_ < filled_.keys ? filled_.queries - first : 0;
    const int tiles = (queries + Shape::kOthers - 1) / Shape::kOthers;
    const auto head_of_tile = [&](int i) { return kv_head_ * call_.group + i / tiles; };
    const auto query_of_tile = [&](int i) { return first + i % tiles * Shape::kOthers; };
    const int count = tiles * call_.group;
    if (count > 0) load(head_of_tile(0), query_of_tile(0), 0);
    for (int i = 0; i < count; ++i) {
      wait_for_copies();
      __syncthreads();  // this tile has come, the one before is done with
      if (i + 1 < count) load(head_of_tile(i + 1), query_of_tile(i + 1), (i + 1) % 2);
      visit(head_of_tile(i), query_of_tile(i), i % 2);
    }
    const int row = first_key_ + warp() * kWarpRows;
    store_rows(dk_, head_of(plan_.dk, args.k_batch_stride), args.k_row_stride, row, filled_.keys,
               call_.keys, column_, call_.head_dim, call_.pairs, args.scale);
    store_rows(dv_, head_of(plan_.dv, args.v_batch_stride), args.v_row_stride, row, filled_.keys,
               call_.keys, column_, call_.head_dim, call_.pairs, 1.0f);
  }

 private:
  __device__ __forceinline__ T* head_of(void* data, std::int64_t batch_stride) const {
    return head_start(static_cast<T*>(data), batch_, batch_stride, kv_head_, call_.head_dim);
  }

  __device__ __forceinline__ void visit(int head, int query, int half) {
    const T *keys = k_ + warp() * kWarpRows * Shape::kStride,
            *values = v_ + warp() * kWarpRows * Shape::kStride;
    const T *q = q_ + half * Shape::kOtherElements, *dy = dy_ + half * Shape::kOtherElements;
    Sums<kTiles> p, ds;  // keys are the rows, queries the columns
    p.clear();
    ds.clear();
    multiply_transposed<kDim, Shape::kStride>(p, keys, q);
    multiply_transposed<kDim, Shape::kStride>(ds, values, dy);
    differentiate(p, ds, head, query, half);
    left_.set(p);
    left_.multiply(dv_, dy + column_, Shape::kStride);
    left_.finish();
    left_.set(ds);
    left_.multiply(dk_, q + column_, Shape::kStride);
  }
  /// Starts loading a tile into one half of the memory for tiles.
  __device__ __forceinline__ void load(int head, int query, int half) {
    const AttentionForward& args = call_.args;
    load_head<Shape::kOthers, Shape, kDim>(q_ + half * Shape::kOtherElements, call_, args.q,
                                           args.q_batch_stride, args.q_row_stride, batch_, head,
                                           query, filled_.queries);
    load_head<Shape::kOthers, Shape, kDim>(dy_ + half * Shape::kOtherElements, call_, plan_.dy,
                                           args.y_batch_stride, args.y_row_stride, batch_, head,
                                           query, filled_.queries);
    for (int i = static_cast<int>(threadIdx.x); i < Shape::kOthers; i += Shape::kThreads) {
      const bool inside = query + i < filled_.queries;
      const std::int64_t row = call_.row(batch_, head, query + i);
      lse_[half * Shape::kOthers + i] = inside ? args.lse[row] * kLog2E : 0.0f;
      shifts_[half * Shape::kOthers + i] = inside ? plan_.shifts[row] : 0.0f;
    }
  }

  /// In: scores and gradients of the dropped probabilities. Out: dropped probabilities, and
  /// gradients of the scaled scores.
  __device__ __forceinline__ void differentiate(Sums<kTiles>& p, Sums<kTiles>& ds, int head,
                                                int query, int half) {
    const float to_log2 = call_.args.scale * kLog2E;
    const float *lse = lse_ + half * Shape::kOthers, *shifts = shifts_ + half * Shape::kOthers;
    const int key = first_key_ + warp() * kWarpRows + lane_row();  // of element 0, and 8 more
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const int column = n * 8 + lane_column();
      float factors[4] = {1, 1, 1, 1};
      if (call_.args.dropout > 0) factors_of(factors, head, query + column, key);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int j = column + i % 2, t = query + j;
        const bool seen = key + i / 2 * 8 < call_.visible(t, filled_);
        const float probability = seen ? exp2f(p.tiles[n][i] * to_log2 - lse[j]) : 0.0f;
        p.tiles[n][i] = probability * factors[i];
        ds.tiles[n][i] = seen ? probability * (ds.tiles[n][i] * factors[i] - shifts[j]) : 0.0f;
      }
    }
  }
  __device__ __forceinline__ void factors_of(float (&factors)[4], int head, int query, int key) {
    const std::uint64_t first =
        first_element(call_.args, batch_, head, query) + static_cast<std::uint64_t>(key);
    const std::uint64_t second = first + static_cast<std::uint64_t>(row_elements(call_.args));
    dropout_.by_key(factors, {first, second, first + 8, second + 8});
  }

  const BackwardPlan& plan_;
  const AttentionCall& call_;
  // In shared memory, those of queries twice:
  T *k_, *v_, *q_, *dy_;
  float *lse_, *shifts_;  // of the tile of queries; lse in powers of two
  typename Shape::Left left_;
  DropoutFactors dropout_;
  std::int64_t batch_;
  AttentionCall::Filled filled_;
  int kv_head_, first_key_, column_;
  Sums<kSliceTiles> dk_, dv_;
};

/// dq of kRows queries of one head.
template <typename T, int kDim>
class QueryBlock {
  using Shape = BackwardShape<T, kDim>;
  static constexpr int kTiles = Shape::kOthers / 8;

 public:
  __device__ __forceinline__ QueryBlock(const BackwardPlan& plan, unsigned char* memory)
      : plan_(plan),
        call_(plan.call),
        q_(reinterpret_cast<T*>(memory)),
        dy_(q_ + Shape::kRows * Shape::kStride),
        k_(dy_ + Shape::kRows * Shape::kStride),
        v_(k_ + 2 * Shape::kOtherElements),
        left_(reinterpret_cast<float*>(memory + Shape::kTileBytes) +
              warp() * Shape::Left::kSharedElements),
        dropout_(plan.call.args),
        batch_(blockIdx.z),
        filled_(plan.call.filled(batch_)),
        head_(static_cast<int>(blockIdx.y)),
        // The last queries see the most keys: they begin first.
        first_query_(static_cast<int>(gridDim.x - 1 - blockIdx.x) * Shape::kRows) {
    for (int i = 0; i < 2; ++i) {
      query_[i] = first_query_ + warp() * kWarpRows + lane_row() + i * 8;
      const bool inside = query_[i] < filled_.queries;
      const std::int64_t row = call_.row(batch_, head_, query_[i]);
      visible_[i] = call_.visible(query_[i], filled_);
      lse_[i] = inside ? call_.args.lse[row] * kLog2E : 0.0f;
      shift_[i] = inside ? plan.shifts[row] : 0.0f;
    }
    dq_.clear();
  }

  __device__ __forceinline__ void run() {
    const AttentionForward& args = call_.args;
    load_head<Shape::kRows, Shape, kDim>(q_, call_, args.q, args.q_batch_stride, args.q_row_stride,
                                         batch_, head_, first_query_, filled_.queries);
    load_head<Shape::kRows, Shape, kDim>(dy_, call_, plan_.dy, args.y_batch_stride,
                                         args.y_row_stride, batch_, head_, first_query_,
                                         filled_.queries);
    const int last_query = min(first_query_ + Shape::kRows, filled_.queries) - 1;
    const int end = first_query_ <= last_query ? call_.visible(last_query, filled_) : 0;
    if (end > 0) load(0, 0);
    for (int key = 0, half = 0; key < end; key += Shape::kOthers, half ^= 1) {
      wait_for_copies();
      __syncthreads();  // this tile has come, the one before is done with
      if (key + Shape::kOthers < end) load(key + Shape::kOthers, half ^ 1);
      visit(key, half);
    }
    T* dq =
        head_start(static_cast<T*>(plan_.dq), batch_, args.q_batch_stride, head_, call_.head_dim);
    store_rows(dq_, dq, args.q_row_stride, first_query_ + warp() * kWarpRows, filled_.queries,
               call_.queries, 0, call_.head_dim, call_.pairs, args.scale);
  }

 private:
  __device__ __forceinline__ void load(int key, int half) {
    const AttentionForward& args = call_.args;
    const int kv_head = head_ / call_.group;
    load_head<Shape::kOthers, Shape, kDim>(k_ + half * Shape::kOtherElements, call_, args.k,
                                           args.k_batch_stride, args.k_row_stride, batch_, kv_head,
                                           key, filled_.keys);
    load_head<Shape::kOthers, Shape, kDim>(v_ + half * Shape::kOtherElements, call_, args.v,
                                           args.v_batch_stride, args.v_row_stride, batch_, kv_head,
                                           key, filled_.keys);
  }
  __device__ __forceinline__ void visit(int key, int half) {
    const T *k = k_ + half * Shape::kOtherElements, *v = v_ + half * Shape::kOtherElements;
    Sums<kTiles> scores, ds;
    scores.clear();
    ds.clear();
    multiply_transposed<kDim, Shape::kStride>(scores, q_ + warp() * kWarpRows * Shape::kStride, k);
    multiply_transposed<kDim, Shape::kStride>(ds, dy_ + warp() * kWarpRows * Shape::kStride, v);
    differentiate(scores, ds, key);
    left_.set(ds);
    left_.multiply(dq_, k, Shape::kStride);
  }
  /// Gradients of the dropped probabilities become gradients of the scaled scores.
  __device__ __forceinline__ void differentiate(const Sums<kTiles>& scores, Sums<kTiles>& ds,
                                                int key) {
    const float to_log2 = call_.args.scale * kLog2E;
    const auto column = static_cast<std::uint64_t>(key + lane_column());
    const std::uint64_t upper = first_element(call_.args, batch_, head_, query_[0]) + column;
    const std::uint64_t lower = first_element(call_.args, batch_, head_, query_[1]) + column;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      float factors[4] = {1, 1, 1, 1};
      const auto skipped = static_cast<std::uint64_t>(n * 8);
      if (call_.args.dropout > 0) dropout_.by_query(factors, upper + skipped, lower + skipped);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = i / 2;
        const bool seen = key + lane_column() + n * 8 + i % 2 < visible_[row];
        const float probability = exp2f(scores.tiles[n][i] * to_log2 - lse_[row]);
        const float slope = ds.tiles[n][i] * factors[i] - shift_[row];
        ds.tiles[n][i] = seen ? probability * slope : 0.0f;
      }
    }
  }

  const BackwardPlan& plan_;
  const AttentionCall& call_;
  T *q_, *dy_, *k_, *v_;  // tiles in shared memory, those of keys and values twice
  typename Shape::Left left_;
  DropoutFactors dropout_;
  std::int64_t batch_;
  AttentionCall::Filled filled_;
  int head_, first_query_;
  // Of the lane's two rows:
  int query_[2], visible_[2];
  float lse_[2], shift_[2];  // lse in powers of two
  Sums<kDim / 8> dq_;
};

template <typename T, int kDim>
__global__ void __launch_bounds__(BackwardShape<T, kDim>::kThreads)
    attention_key_gradients_kernel(const BackwardPlan plan) {
  DYNAMIC_SHARED(unsigned char, memory);
  KeyBlock<T, kDim>(plan, memory).run();
}

template <typename T, int kDim>
__global__ void __launch_bounds__(BackwardShape<T, kDim>::kThreads)
    attention_query_gradients_kernel(const BackwardPlan plan) {
  DYNAMIC_SHARED(unsigned char, memory);
  QueryBlock<T, kDim>(plan, memory).run();
}

/// The sum over keys of probability times its gradient equals dy . y; a warp for each row.
template <typename T>
__global__ void __launch_bounds__(128) attention_shift_kernel(const BackwardPlan plan) {
  const AttentionCall& call = plan.call;
  const std::int64_t row = std::int64_t{blockIdx.x} * 4 + threadIdx.x / 32;
  if (row >= call.args.batch * call.args.heads * call.queries) return;
  const std::int64_t query = row % call.queries, head = row / call.queries % call.args.heads;
  const std::int64_t batch = row / call.queries / call.args.heads;
  if (query >= call.filled(batch).queries) return;
  const std::int64_t start =
      batch * call.args.y_batch_stride + query * call.args.y_row_stride + head * call.head_dim;
  const T* y = static_cast<const T*>(call.args.y) + start;
  const T* dy = static_cast<const T*>(plan.dy) + start;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float sum = 0;
  for (int i = lane; i < call.head_dim; i += 32)
    sum = fmaf(static_cast<float>(y[i]), static_cast<float>(dy[i]), sum);
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  if (lane == 0) plan.shifts[row] = sum;
}

bool all_aligned(const AttentionBackward& args, std::size_t bytes) {
  const AttentionForward& forward = args.forward;
  const auto aligned = [&](const void* data, std::int64_t row, std::int64_t batch) {
    return rows_aligned(data, row, batch, forward.dtype, bytes);
  };
  return aligned(args.dq, forward.q_row_stride, forward.q_batch_stride) &&
         aligned(args.dk, forward.k_row_stride, forward.k_batch_stride) &&
         aligned(args.dv, forward.v_row_stride, forward.v_batch_stride);
}

/// Data center GPUs have enough for every instance, others not for the widest.
void require_shared_memory(int device, std::size_t bytes, const AttentionForward& args) {
  int most = 0;
  tessera::cuda::check_cuda(
      cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
      "asking for the size of shared memory");
  TESSERA_CHECK(bytes <= static_cast<std::size_t>(most), Code::not_supported,
                "the backward pass of attention with head dimension " +
                    std::to_string(args.head_dim) + " in " + to_string(args.dtype) + " needs " +
                    std::to_string(bytes) +
                    " bytes of shared memory, and cuda:" + std::to_string(device) + " has " +
                    std::to_string(most) + "; use a 16-bit type or smaller heads");
}

template <typename T, int kDim>
void backward(const Stream& stream, const AttentionBackward& args) {
  using Shape = BackwardShape<T, kDim>;
  const AttentionForward& forward = args.forward;
  require_shared_memory(stream.device().index, Shape::kBytes, forward);
  BackwardPlan plan{.call = attention_call(forward),
                    .dy = args.dy,
                    .dq = args.dq,
                    .dk = args.dk,
                    .dv = args.dv,
                    .shifts = nullptr,
                    .slices = kDim / Shape::kSlice};
  plan.call.vectors &=
      rows_aligned(args.dy, forward.y_row_stride, forward.y_batch_stride, forward.dtype, 16);
  plan.call.pairs = forward.head_dim % 2 == 0 && all_aligned(args, 2 * size_of(forward.dtype));
  const std::int64_t rows = forward.batch * forward.heads * forward.queries;
  const Buffer shifts =
      allocate(static_cast<std::size_t>(rows) * sizeof(float), stream.device(), Purpose::workspace);
  plan.shifts = shifts.as<float>();
  const auto grid = [&](std::int64_t length, std::int64_t heads) {
    return dim3(static_cast<unsigned>(ceil_divide(length, std::int64_t{Shape::kRows})),
                static_cast<unsigned>(heads), static_cast<unsigned>(forward.batch));
  };
  dim3 key_grid = grid(forward.keys, forward.kv_heads);
  key_grid.x *= static_cast<unsigned>(plan.slices);
  tessera::cuda::launch<attention_shift_kernel<T>>(
      stream, dim3(static_cast<unsigned>(ceil_divide(rows, std::int64_t{4}))), dim3(128), 0, plan);
  tessera::cuda::launch<attention_key_gradients_kernel<T, kDim>>(
      stream, key_grid, dim3(Shape::kThreads), Shape::kBytes, plan);
  tessera::cuda::launch<attention_query_gradients_kernel<T, kDim>>(
      stream, grid(forward.queries, forward.heads), dim3(Shape::kThreads), Shape::kBytes, plan);
}

}  // namespace

void attention_backward(const Stream& stream, const AttentionBackward& args) {
  const StreamScope scope(stream);  // of the workspace
  dispatch_attention(args.forward, [&]<typename T, int kDim>(T, std::integral_constant<int, kDim>) {
    backward<T, kDim>(stream, args);
  });
}

}  // namespace tessera::kernels::cuda
