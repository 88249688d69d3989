// SPDX-License-Identifier: Apache-2.0
// Sums over the rows of a matrix in two stages: fixed blocks of rows sum into rows of their own,
// and these are added in order. The partition depends on the sizes alone, so the bits do not depend
// on the GPU.
#pragma once

#include <algorithm>
#include <cstdint>

#include "tessera/base/shape.hpp"

#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/workspace.hpp"

namespace tessera::kernels::cuda {

/// At most this many partial rows: about one block for each multiprocessor of an H100, and little
/// to write beside the matrix itself.
inline constexpr std::int64_t kRowBlocks = 128;

/// Lanes of columns and parts of rows in a block of these kernels.
inline constexpr int kColumnLanes = 32, kRowParts = 8;

/// Terms::kSets sums of [columns] for block y of rows: Terms adds row r to `sums`.
template <typename Terms, int N>
__global__ __launch_bounds__(kColumnLanes* kRowParts) void row_sums_kernel(
    Terms terms, std::int64_t rows, std::int64_t columns, std::int64_t block_rows, float* partial) {
  constexpr int kSets = Terms::kSets;
  __shared__ float parts[kRowParts][kSets][N][kColumnLanes];
  const int lane = static_cast<int>(threadIdx.x), part = static_cast<int>(threadIdx.y);
  const std::int64_t column = (static_cast<std::int64_t>(blockIdx.x) * kColumnLanes + lane) * N;
  const std::int64_t first = blockIdx.y * block_rows;
  const std::int64_t last = first + block_rows < rows ? first + block_rows : rows;
  float sums[kSets][N] = {};
  if (column < columns) {
#pragma unroll 4
    for (std::int64_t r = first + part; r < last; r += kRowParts) terms(r, column, sums);
  }
#pragma unroll
  for (int s = 0; s < kSets; ++s)
#pragma unroll
    for (int k = 0; k < N; ++k) parts[part][s][k][lane] = sums[s][k];
  __syncthreads();
  // Each part folds the sets and elements that are its turn.
  for (int at = part; at < kSets * N; at += kRowParts) {
    const int s = at / N, k = at % N;
    float total = parts[0][s][k][lane];
#pragma unroll
    for (int p = 1; p < kRowParts; ++p) total += parts[p][s][k][lane];
    if (column < columns) partial[(blockIdx.y * kSets + s) * columns + column + k] = total;
  }
}

inline constexpr int kFoldParts = 16;

/// output[c] (+)= partial[0][c] + partial[1][c] + …, where rows are `stride` apart.
template <typename T>
__global__ __launch_bounds__(kColumnLanes* kFoldParts) void fold_rows_kernel(
    const float* partial, int blocks, std::int64_t stride, std::int64_t columns, T* output,
    bool accumulate) {
  __shared__ float parts[kFoldParts][kColumnLanes];
  const int lane = static_cast<int>(threadIdx.x), part = static_cast<int>(threadIdx.y);
  const std::int64_t column = static_cast<std::int64_t>(blockIdx.x) * kColumnLanes + lane;
  const int each = (blocks + kFoldParts - 1) / kFoldParts;
  const int last = min((part + 1) * each, blocks);
  float sum = 0;
  if (column < columns) {
#pragma unroll 8
    for (int b = part * each; b < last; ++b) sum += partial[b * stride + column];
  }
  parts[part][lane] = sum;
  __syncthreads();
  if (part != 0 || column >= columns) return;
#pragma unroll
  for (int p = 1; p < kFoldParts; ++p) sum += parts[p][lane];
  if (accumulate) sum += to_float(output[column]);
  output[column] = round_to<T>(sum);
}

/// Workspace for `sets` partial sums of [columns] for each block of rows.
class RowSums {
 public:
  /// A block's rows are a multiple of `granularity`.
  RowSums(const Stream& stream, std::int64_t rows, std::int64_t columns, int sets,
          std::int64_t granularity)
      : stream_(stream),
        rows_(rows),
        columns_(columns),
        sets_(sets),
        block_rows_(
            std::max<std::int64_t>(1, round_up(ceil_divide(rows, kRowBlocks), granularity))),
        blocks_(ceil_divide(rows, block_rows_)),
        memory_(allocate_workspace(
            stream, static_cast<std::size_t>(blocks_ * sets * columns) * sizeof(float))) {}

  std::int64_t block_rows() const { return block_rows_; }
  unsigned blocks() const { return static_cast<unsigned>(blocks_); }
  /// Block b's set s starts at (b * sets + s) * columns.
  float* partial() const { return memory_.as<float>(); }

  /// Stage one for terms(r, column, sums[sets][N]).
  template <int N, typename Terms>
  void fill(const Terms& terms) const {
    tessera::cuda::launch<row_sums_kernel<Terms, N>>(
        stream_, dim3(blocks_for(columns_, std::int64_t{kColumnLanes} * N), blocks()),
        dim3(kColumnLanes, kRowParts), 0, terms, rows_, columns_, block_rows_, partial());
  }
  /// Stage two for one set, rounded once to the output's type.
  void fold(int set, void* output, DType output_type, bool accumulate) const {
    dispatch_type(output_type, "a sum over rows", [&]<typename T>(T) {
      tessera::cuda::launch<fold_rows_kernel<T>>(
          stream_, dim3(blocks_for(columns_, kColumnLanes)), dim3(kColumnLanes, kFoldParts), 0,
          partial() + set * columns_, static_cast<int>(blocks_), sets_ * columns_, columns_,
          static_cast<T*>(output), accumulate);
    });
  }

 private:
  const Stream& stream_;
  std::int64_t rows_, columns_, sets_;
  std::int64_t block_rows_, blocks_;
  Buffer memory_;
};

}  // namespace tessera::kernels::cuda
