// SPDX-License-Identifier: Apache-2.0
// Normalisation over rows, forward and backward, for LayerNorm (centred) and RMSNorm (not).
//
// Groups of 32 to 512 threads hold a row each in registers, so every array is moved once. Rows that
// are too long for that, or not aligned, are read again from the cache.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/group.cuh"
#include "kernels/cuda/row_sums.cuh"
#include "kernels/cuda/shared_memory.cuh"

namespace tessera::kernels::cuda {

inline constexpr int kNormThreads = 512;
/// Elements of a row for each thread: 16 registers of fp32, and 32 for the sums of their columns.
inline constexpr int kHeldElements = 16;

template <typename T>
struct NormForward {
  const T* x;
  const T* weight;
  const T* bias;  // or nullptr
  T* y;
  float* mean;  // or nullptr
  float* rstd;  // or nullptr
  std::int64_t rows, columns;
  float epsilon;
  const T* residual = nullptr;
  T* sum = nullptr;  // of x and the residual, which is normalised instead of x
};

template <typename T>
struct NormBackward {
  const T* dy;
  const T* x;
  const T* weight;
  const float* mean;  // nullptr: not centred
  const float* rstd;
  T* dx;
  bool accumulate_dx;
  void* dweight;  // or nullptr
  void* dbias;    // or nullptr
  DType gradient_type;
  bool accumulate;
  std::int64_t rows, columns;
};

/// Writes this thread's elements of a row of residual + x. It alone reads them again.
template <typename T, int N, int kGroup>
__device__ __forceinline__ const T* add_row(const NormForward<T>& args, std::int64_t offset,
                                            std::int64_t columns, int lane) {
  T* sum = args.sum + offset;
#pragma unroll 1
  for (std::int64_t i = lane * N; i < columns; i += kGroup * N)
    store_map(
        sum + i, [](float p, float q) { return p + q; }, load<N>(args.residual + offset + i),
        load<N>(args.x + offset + i));
  return sum;
}

/// kGroup threads for each row, kPacks packs of N elements for each thread (0: any number).
template <bool kCentred, typename T, int N, int kGroup, int kPacks>
__global__ __launch_bounds__(kNormThreads) void norm_forward_kernel(NormForward<T> args) {
  constexpr int kGroups = kNormThreads / kGroup;
  __shared__ WarpSlots mean_slots, variance_slots;
  const int lane = static_cast<int>(threadIdx.x) % kGroup;
  const std::int64_t row =
      static_cast<std::int64_t>(blockIdx.x) * kGroups + static_cast<int>(threadIdx.x) / kGroup;
  const std::int64_t columns = row < args.rows ? args.columns : 0;
  const T* source = args.residual != nullptr
                        ? add_row<T, N, kGroup>(args, row * args.columns, columns, lane)
                        : args.x + row * args.columns;
  const HeldRow<T, N, kGroup, kPacks> x(source, columns, lane);
  const auto count = static_cast<float>(args.columns);
  float mean = 0;
  if constexpr (kCentred) {
    float sum = 0;
    x.for_each([&](auto, const Pack<T, N>& pack) {
#pragma unroll
      for (int k = 0; k < N; ++k) sum += pack[k];
    });
    mean = group_sum<kGroup>(sum, mean_slots) / count;
  }
  // Squares of the differences to the mean, not mean of the squares: no cancellation.
  float squares = 0;
  x.for_each([&](auto, const Pack<T, N>& pack) {
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const float d = pack[k] - mean;
      squares = fmaf(d, d, squares);
    }
  });
  const float variance = group_sum<kGroup>(squares, variance_slots) / count;
  const float rstd = 1.0f / sqrtf(variance + args.epsilon);
  T* y = args.y + row * args.columns;
  x.for_each([&](auto i, const Pack<T, N>& pack) {
    const auto weight = load<N>(args.weight + i);
    Pack<T, N> bias, out;
    if (args.bias != nullptr) bias = load<N>(args.bias + i);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const float unit = (pack[k] - mean) * rstd;
      out.values[k] = round_to<T>(fmaf(unit, weight[k], args.bias != nullptr ? bias[k] : 0.0f));
    }
    store(y + i, out);
  });
  if (lane == 0 && row < args.rows) {
    if (args.mean != nullptr) args.mean[row] = mean;
    if (args.rstd != nullptr) args.rstd[row] = rstd;
  }
}

/// What is known of a row in the backward pass.
struct RowStatistics {
  float mean, rstd;
  float gradient = 0;      // mean of dy * weight; 0 unless centred
  float gradient_dot = 0;  // mean of dy * weight * unit
};

template <typename T>
__device__ __forceinline__ RowStatistics row_statistics(const NormBackward<T>& args,
                                                        std::int64_t row) {
  if (row >= args.rows) return {0, 0};
  return {args.mean != nullptr ? args.mean[row] : 0.0f, args.rstd[row]};
}

/// Adds the terms of one pack to the two sums over a row.
template <bool kCentred, typename T, int N>
__device__ __forceinline__ void add_gradients(const NormBackward<T>& args, const RowStatistics& row,
                                              std::int64_t i, const Pack<T, N>& x,
                                              const Pack<T, N>& dy, float2& sums) {
  const auto weight = load<N>(args.weight + i);
#pragma unroll
  for (int k = 0; k < N; ++k) {
    const float g = dy[k] * weight[k];
    if constexpr (kCentred) sums.x += g;
    sums.y = fmaf(g, (x[k] - row.mean) * row.rstd, sums.y);
  }
}

/// Writes dx for one pack.
template <typename T, int N>
__device__ __forceinline__ void store_input_gradient(const NormBackward<T>& args,
                                                     const RowStatistics& row, std::int64_t i,
                                                     const Pack<T, N>& x, const Pack<T, N>& dy,
                                                     T* dx) {
  const auto weight = load<N>(args.weight + i);
  Pack<T, N> out;
  if (args.accumulate_dx) out = load<N>(dx + i);
#pragma unroll
  for (int k = 0; k < N; ++k) {
    const float unit = (x[k] - row.mean) * row.rstd;
    const float inner = fmaf(-unit, row.gradient_dot, dy[k] * weight[k] - row.gradient);
    out.values[k] = round_to<T>(fmaf(inner, row.rstd, args.accumulate_dx ? out[k] : 0.0f));
  }
  store(dx + i, out);
}

/// dx for rows that no thread can hold: one block a row.
template <bool kCentred, typename T, int N>
__global__ __launch_bounds__(kNormThreads) void norm_dx_kernel(NormBackward<T> args) {
  __shared__ WarpSlots slots[2];
  const std::int64_t at = blockIdx.x;
  const int lane = static_cast<int>(threadIdx.x);
  const HeldRow<T, N, kNormThreads, 0> x(args.x + at * args.columns, args.columns, lane);
  const T* dy = args.dy + at * args.columns;
  T* dx = args.dx + at * args.columns;
  RowStatistics row = row_statistics(args, at);
  float2 sums = make_float2(0, 0);
  x.for_each([&](auto i, const Pack<T, N>& pack) {
    add_gradients<kCentred>(args, row, i, pack, load<N>(dy + i), sums);
  });
  sums = group_sums<kNormThreads>(sums.x, sums.y, slots);
  const auto count = static_cast<float>(args.columns);
  row.gradient = sums.x / count;
  row.gradient_dot = sums.y / count;
  x.for_each([&](auto i, const Pack<T, N>& pack) {
    store_input_gradient(args, row, i, pack, load<N>(dy + i), dx);
  });
}

/// Terms of dweight and, when centred, dbias, for sums over rows on their own.
template <bool kCentred, typename T>
struct NormTerms {
  static constexpr int kSets = kCentred ? 2 : 1;
  NormBackward<T> args;

  template <int N>
  __device__ void operator()(std::int64_t row, std::int64_t column, float (&sums)[kSets][N]) const {
    const auto x = load<N>(args.x + row * args.columns + column);
    const auto dy = load<N>(args.dy + row * args.columns + column);
    const RowStatistics statistics = row_statistics(args, row);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      sums[0][k] = fmaf(dy[k], (x[k] - statistics.mean) * statistics.rstd, sums[0][k]);
      if constexpr (kCentred) sums[1][k] += dy[k];
    }
  }
};

/// The sums that a thread of the fused kernel keeps for its columns.
template <int kSets, int N, int kPacks>
struct ColumnSums {
  float values[kSets][kPacks][N] = {};
};

/// Adds the groups of a block in order, in shared memory, and writes the block's partial sums.
template <int kSets, int N, int kGroup, int kPacks>
__device__ __forceinline__ void write_partial(const ColumnSums<kSets, N, kPacks>& sums,
                                              std::int64_t columns, float* shared, float* partial) {
  constexpr int kGroups = kNormThreads / kGroup;
  const int lane = static_cast<int>(threadIdx.x) % kGroup;
  const int group = static_cast<int>(threadIdx.x) / kGroup;
  for (int turn = 0; turn < kGroups; ++turn) {
    float* target = turn == kGroups - 1 ? partial : shared;
    if (turn > 0) __syncthreads();
    if (group == turn) {
#pragma unroll
      for (int s = 0; s < kSets; ++s)
#pragma unroll
        for (int p = 0; p < kPacks; ++p) {
          const int i = pack_position<N, kGroup>(p, lane);
          if (i >= columns) continue;
#pragma unroll
          for (int k = 0; k < N; ++k) {
            const float before = turn == 0 ? 0.0f : shared[s * columns + i + k];
            target[s * columns + i + k] = before + sums.values[s][p][k];
          }
        }
    }
  }
}

/// dx, and the partial sums of dweight and dbias for one block of rows, which its groups take in
/// turns.
template <bool kCentred, typename T, int N, int kGroup>
__global__ __launch_bounds__(kNormThreads) void norm_backward_kernel(NormBackward<T> args,
                                                                     std::int64_t block_rows,
                                                                     float* partial) {
  constexpr int kGroups = kNormThreads / kGroup, kPacks = kHeldElements / N;
  constexpr int kSets = kCentred ? 2 : 1;
  DYNAMIC_SHARED(float, shared);
  __shared__ WarpSlots slots[2][2];  // in turns, so that one barrier a row is enough
  const int lane = static_cast<int>(threadIdx.x) % kGroup;
  const int group = static_cast<int>(threadIdx.x) / kGroup;
  const std::int64_t first = blockIdx.x * block_rows;
  const std::int64_t last = min(first + block_rows, args.rows);
  const auto count = static_cast<float>(args.columns);
  ColumnSums<kSets, N, kPacks> sums;
  int parity = 0;
  for (std::int64_t base = first; base < last; base += kGroups, parity ^= 1) {
    const std::int64_t at = base + group;
    const std::int64_t columns = at < last ? args.columns : 0;
    const HeldRow<T, N, kGroup, kPacks> x(args.x + at * args.columns, columns, lane);
    const HeldRow<T, N, kGroup, kPacks> dy(args.dy + at * args.columns, columns, lane);
    RowStatistics row = row_statistics(args, at);
    float2 dots = make_float2(0, 0);
    x.for_each_with(dy, [&](int p, int i, const Pack<T, N>& px, const Pack<T, N>& pdy) {
      add_gradients<kCentred>(args, row, i, px, pdy, dots);
#pragma unroll
      for (int k = 0; k < N; ++k) {
        sums.values[0][p][k] = fmaf(pdy[k], (px[k] - row.mean) * row.rstd, sums.values[0][p][k]);
        if constexpr (kCentred) sums.values[1][p][k] += pdy[k];
      }
    });
    dots = group_sums<kGroup>(dots.x, dots.y, slots[parity]);
    row.gradient = dots.x / count;
    row.gradient_dot = dots.y / count;
    T* dx = args.dx + at * args.columns;
    x.for_each_with(dy, [&](int, int i, const Pack<T, N>& px, const Pack<T, N>& pdy) {
      store_input_gradient(args, row, i, px, pdy, dx);
    });
  }
  if (partial == nullptr) return;
  write_partial<kSets, N, kGroup, kPacks>(sums, args.columns, shared,
                                          partial + blockIdx.x * kSets * args.columns);
}

/// Calls body(Width<g>) with the smallest group that holds a row of `columns`; false when none
/// does.
template <typename Body>
bool dispatch_group(std::int64_t columns, Body&& body) {
  const auto fits = [&](int group) { return columns <= std::int64_t{group} * kHeldElements; };
  if (fits(32))
    body(Width<32>());
  else if (fits(64))
    body(Width<64>());
  else if (fits(128))
    body(Width<128>());
  else if (fits(256))
    body(Width<256>());
  else if (fits(512))
    body(Width<512>());
  else
    return false;
  return true;
}

template <bool kCentred, typename T>
void norm_forward(const Stream& stream, const NormForward<T>& args) {
  constexpr int kWide = kPackWidth<T>;
  const bool wide = args.columns % kWide == 0 &&
                    all_aligned<kWide>(args.x, args.weight, args.bias, args.residual) &&
                    is_aligned<kWide>(args.y) && is_aligned<kWide>(args.sum);
  const auto start = [&]<int N, int kGroup, int kPacks>() {
    tessera::cuda::launch<norm_forward_kernel<kCentred, T, N, kGroup, kPacks>>(
        stream, dim3(blocks_for(args.rows, kNormThreads / kGroup)), dim3(kNormThreads), 0, args);
  };
  if (!wide) return start.template operator()<1, kNormThreads, 0>();
  const bool held = dispatch_group(args.columns, [&]<int kGroup>(Width<kGroup>) {
    start.template operator()<kWide, kGroup, kHeldElements / kWide>();
  });
  if (!held) start.template operator()<kWide, kNormThreads, 0>();
}

template <bool kCentred, typename T>
void norm_backward(const Stream& stream, const NormBackward<T>& args) {
  constexpr int kWide = kPackWidth<T>, kSets = kCentred ? 2 : 1;
  const bool wanted = args.dweight != nullptr || args.dbias != nullptr;
  const bool wide = args.columns % kWide == 0 && all_aligned<kWide>(args.x, args.dy, args.weight) &&
                    is_aligned<kWide>(args.dx);
  const RowSums sums(stream, args.rows, args.columns, wanted ? kSets : 0, kNormThreads / 32);
  const bool fused = wide && dispatch_group(args.columns, [&]<int kGroup>(Width<kGroup>) {
                       const std::int64_t shared = kGroup < kNormThreads ? kSets * args.columns : 0;
                       tessera::cuda::launch<norm_backward_kernel<kCentred, T, kWide, kGroup>>(
                           stream, dim3(sums.blocks()), dim3(kNormThreads),
                           static_cast<std::size_t>(shared) * sizeof(float), args,
                           sums.block_rows(), wanted ? sums.partial() : nullptr);
                     });
  if (!fused) {
    dispatch_width<kWide>(wide, [&]<int N>(Width<N>) {
      tessera::cuda::launch<norm_dx_kernel<kCentred, T, N>>(stream, dim3(blocks_for(args.rows, 1)),
                                                            dim3(kNormThreads), 0, args);
      if (wanted) sums.template fill<N>(NormTerms<kCentred, T>{args});
    });
  }
  if (args.dweight != nullptr) sums.fold(0, args.dweight, args.gradient_type, args.accumulate);
  if (args.dbias != nullptr) sums.fold(1, args.dbias, args.gradient_type, args.accumulate);
}

}  // namespace tessera::kernels::cuda
