// SPDX-License-Identifier: Apache-2.0
// Small fp32 matrix products on packed blocks that sit in the cache, compiled once per instruction
// set like base/simd-inl.hpp. Large products go through oneDNN; these are for attention, whose
// blocks change between two products.
#if defined(TESSERA_KERNELS_CPU_TILE_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_KERNELS_CPU_TILE_INL
#undef TESSERA_KERNELS_CPU_TILE_INL
#else
#define TESSERA_KERNELS_CPU_TILE_INL
#endif

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include <hwy/highway.h>

#include "base/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {

// Accumulators of a tile: 24 of the 32 vector registers, or 12 of 16.
inline constexpr int kTileRows = 6;
#if HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM
inline constexpr int kTileVectors = 4;
#else
inline constexpr int kTileVectors = 2;
#endif

/// Element (row, step) of a left operand is at data[row * row_stride + step * step_stride].
struct LeftOperand {
  const float* data;
  std::int64_t row_stride, step_stride;
  LeftOperand shifted(std::int64_t rows, std::int64_t steps) const {
    return {data + rows * row_stride + steps * step_stride, row_stride, step_stride};
  }
};

using TileFunction = void (*)(LeftOperand a, const float* b, std::int64_t ldb, std::int64_t depth,
                              float* c, std::int64_t ldc, bool accumulate);

#if HWY_HAVE_SCALABLE
// Vectors without a size at compile time cannot stand in arrays.
template <int kRows, int kVectors>
HWY_NOINLINE void multiply_tile(LeftOperand a, const float* b, std::int64_t ldb, std::int64_t depth,
                                float* c, std::int64_t ldc, bool accumulate) {
  const FloatTag tag;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(tag));
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < kVectors; ++v) {
      float* target = c + r * ldc + v * lanes;
      auto sum = accumulate ? hn::LoadU(tag, target) : hn::Zero(tag);
      for (std::int64_t s = 0; s < depth; ++s)
        sum = hn::MulAdd(hn::Set(tag, a.data[r * a.row_stride + s * a.step_stride]),
                         hn::LoadU(tag, b + s * ldb + v * lanes), sum);
      hn::StoreU(sum, tag, target);
    }
}
#else
template <int kRows, int kVectors>
HWY_NOINLINE void multiply_tile(LeftOperand a, const float* b, std::int64_t ldb, std::int64_t depth,
                                float* c, std::int64_t ldc, bool accumulate) {
  const FloatTag tag;
  constexpr std::int64_t lanes = hn::MaxLanes(tag);
  FloatVector sums[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v)
      sums[r][v] = accumulate ? hn::LoadU(tag, c + r * ldc + v * lanes) : hn::Zero(tag);
  for (std::int64_t s = 0; s < depth; ++s) {
    FloatVector right[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) right[v] = hn::LoadU(tag, b + s * ldb + v * lanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const auto left = hn::Set(tag, a.data[r * a.row_stride + s * a.step_stride]);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::MulAdd(left, right[v], sums[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) hn::StoreU(sums[r][v], tag, c + r * ldc + v * lanes);
}
#endif

template <std::size_t... kIndices>
constexpr std::array<TileFunction, sizeof...(kIndices)> tile_table(
    std::index_sequence<kIndices...>) {
  return {multiply_tile<static_cast<int>(kIndices) / kTileVectors + 1,
                        static_cast<int>(kIndices) % kTileVectors + 1>...};
}

/// Columns (a multiple of the vector's lanes) and steps that a group of rows needs.
struct Extent {
  std::int64_t columns, first_step, last_step;
};

/// c[rows, columns] (+)= a[rows, steps] b[steps, columns]. extent(first_row, last_row) gives what
/// each group of up to kTileRows rows (inclusive bounds) needs: a triangle costs half a square.
template <typename ExtentOf>
HWY_INLINE void multiply_block(std::int64_t rows, LeftOperand a, const float* b, std::int64_t ldb,
                               float* c, std::int64_t ldc, bool accumulate, ExtentOf&& extent) {
  static constexpr auto kTable = tile_table(std::make_index_sequence<kTileRows * kTileVectors>());
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(FloatTag()));
  for (std::int64_t r = 0; r < rows; r += kTileRows) {
    const std::int64_t count = std::min<std::int64_t>(kTileRows, rows - r);
    const Extent e = extent(r, r + count - 1);
    const LeftOperand left = a.shifted(r, e.first_step);
    for (std::int64_t j = 0; j < e.columns; j += kTileVectors * lanes) {
      const std::int64_t vectors = std::min<std::int64_t>(kTileVectors, (e.columns - j) / lanes);
      const auto index = static_cast<std::size_t>((count - 1) * kTileVectors + vectors - 1);
      kTable[index](left, b + e.first_step * ldb + j, ldb, e.last_step - e.first_step,
                    c + r * ldc + j, ldc, accumulate);
    }
  }
}

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#endif
