// SPDX-License-Identifier: Apache-2.0
// Products of a warp: 16 rows of sums in registers, operands in shared memory; tensor cores for 16
// bit, fused multiply-adds for fp32. Both keep sums where m16n8k16 has them.
#pragma once

#include "kernels/cuda/tensor_core.cuh"

namespace tessera::kernels::cuda {

/// Rows of a warp's tile.
inline constexpr int kWarpRows = 16;

/// Sums [16, 8 * kTiles]: element i of tile n is row lane / 4 + i / 2 * 8, column 8 n + lane % 4 *
/// 2
/// + i % 2.
template <int kTiles>
struct Sums {
  float tiles[kTiles][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) tiles[n][i] = 0;
  }
};

/// Elements between rows of tiles in shared memory: eight rows begin in different banks.
template <typename T, int kColumns>
inline constexpr int kTileStride = kColumns + 16 / static_cast<int>(sizeof(T));

/// The first and second row, and the first column of each tile, that the calling lane holds.
__device__ __forceinline__ int lane_row() {
  return static_cast<int>(threadIdx.x) % 32 / 4;
}
__device__ __forceinline__ int lane_column() {
  return static_cast<int>(threadIdx.x) % 4 * 2;
}

/// Sums of an earlier product as the left operand of the next: stays in registers.
template <typename T, int kColumns>
class LeftOperand {
 public:
  static constexpr int kSharedElements = 0;

  __device__ __forceinline__ explicit LeftOperand(float*) {}
  __device__ __forceinline__ void set(const Sums<kColumns / 8>& sums) {
#pragma unroll
    for (int k = 0; k < kColumns / 16; ++k)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float* two = &sums.tiles[2 * k + i / 2][i % 2 * 2];
        fragments_[k].words[i] = pack_two<T>(two[0], two[1]);
      }
  }
  __device__ __forceinline__ void finish() {}
  /// sums += this * rows, rows being [kColumns, 8 * kTiles] in shared memory.
  template <int kTiles>
  __device__ __forceinline__ void multiply(Sums<kTiles>& sums, const T* rows, int stride) const {
#pragma unroll
    for (int k = 0; k < kColumns / 16; ++k)
#pragma unroll
      for (int n = 0; n < kTiles; n += 2) {
        RightFragment right[2];
        load_right_rows(right, rows + k * 16 * stride + n * 8, stride);
        multiply_add<T>(sums.tiles[n], fragments_[k], right[0]);
        multiply_add<T>(sums.tiles[n + 1], fragments_[k], right[1]);
      }
  }

 private:
  LeftFragment fragments_[kColumns / 16];
};

/// fp32: goes through shared memory of the warp.
template <int kColumns>
class LeftOperand<float, kColumns> {
 public:
  static constexpr int kStride = kTileStride<float, kColumns>;
  static constexpr int kSharedElements = kWarpRows * kStride;

  /// `shared`: kSharedElements of this warp.
  __device__ __forceinline__ explicit LeftOperand(float* shared) : shared_(shared) {}
  __device__ __forceinline__ void set(const Sums<kColumns / 8>& sums) {
    float* target = shared_ + lane_row() * kStride + lane_column();
#pragma unroll
    for (int n = 0; n < kColumns / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) target[i / 2 * 8 * kStride + n * 8 + i % 2] = sums.tiles[n][i];
    __syncwarp();
  }
  /// Between a product and the next set(), unless a barrier of the block lies there.
  __device__ __forceinline__ void finish() {
    __syncwarp();
  }
  template <int kTiles>
  __device__ __forceinline__ void multiply(Sums<kTiles>& sums, const float* rows,
                                           int stride) const {
    const float* left = shared_ + lane_row() * kStride;
    const float* right = rows + lane_column();
#pragma unroll 2
    for (int k = 0; k < kColumns; ++k) {
      const float upper = left[k], lower = left[8 * kStride + k];
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
        const float2 two = *reinterpret_cast<const float2*>(right + k * stride + n * 8);
        sums.tiles[n][0] = fmaf(upper, two.x, sums.tiles[n][0]);
        sums.tiles[n][1] = fmaf(upper, two.y, sums.tiles[n][1]);
        sums.tiles[n][2] = fmaf(lower, two.x, sums.tiles[n][2]);
        sums.tiles[n][3] = fmaf(lower, two.y, sums.tiles[n][3]);
      }
    }
  }

 private:
  float* shared_;
};

/// sums += left * columns^T, left being [16, kInner] and columns [8 * kTiles, kInner], both in
/// shared memory with rows `kStride` elements apart.
template <int kInner, int kStride, int kTiles, typename T>
__device__ __forceinline__ void multiply_transposed(Sums<kTiles>& sums, const T* left,
                                                    const T* columns) {
#pragma unroll
  for (int k = 0; k < kInner; k += 16) {
    const LeftFragment rows = load_left(left + k, kStride);
#pragma unroll
    for (int n = 0; n < kTiles; n += 2) {
      RightFragment right[2];
      load_right_columns(right, columns + n * 8 * kStride + k, kStride);
      multiply_add<T>(sums.tiles[n], rows, right[0]);
      multiply_add<T>(sums.tiles[n + 1], rows, right[1]);
    }
  }
}

__device__ __forceinline__ float dot_add(const float4& a, const float4& b, float sum) {
  return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

template <int kInner, int kStride, int kTiles>
__device__ __forceinline__ void multiply_transposed(Sums<kTiles>& sums, const float* left,
                                                    const float* columns) {
  const float* rows = left + lane_row() * kStride;
  const float* right = columns + lane_column() * kStride;
  const auto four = [](const float* start) { return *reinterpret_cast<const float4*>(start); };
#pragma unroll 2
  for (int k = 0; k < kInner; k += 4) {
    const float4 upper = four(rows + k), lower = four(rows + 8 * kStride + k);
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const float4 first = four(right + n * 8 * kStride + k);
      const float4 second = four(right + (n * 8 + 1) * kStride + k);
      sums.tiles[n][0] = dot_add(upper, first, sums.tiles[n][0]);
      sums.tiles[n][1] = dot_add(upper, second, sums.tiles[n][1]);
      sums.tiles[n][2] = dot_add(lower, first, sums.tiles[n][2]);
      sums.tiles[n][3] = dot_add(lower, second, sums.tiles[n][3]);
    }
  }
}

}  // namespace tessera::kernels::cuda
