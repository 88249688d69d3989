// SPDX-License-Identifier: Apache-2.0
// Sums over the rows of a matrix: fixed blocks of rows each sum into a row of their own, and the
// blocks' sums are added in order. The result does not depend on the number of threads.
#if defined(TESSERA_KERNELS_CPU_ROW_SUMS_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_KERNELS_CPU_ROW_SUMS_INL
#undef TESSERA_KERNELS_CPU_ROW_SUMS_INL
#else
#define TESSERA_KERNELS_CPU_ROW_SUMS_INL
#endif

#include <algorithm>
#include <cstdint>

#include "tessera/base/shape.hpp"
#include "tessera/device/buffer.hpp"

#include "kernels/cpu/parallel.hpp"
#include "kernels/cpu/vector-inl.hpp"
#include "kernels/dispatch.hpp"

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {

/// `sets` partial sums of [columns] for every block of rows, zeroed by the block that fills them.
class RowSums {
 public:
  RowSums(std::int64_t rows, std::int64_t columns, int sets)
      : rows_(rows),
        columns_(columns),
        sets_(sets),
        block_rows_(std::max<std::int64_t>(16, ceil_divide(rows, 32))),
        blocks_(ceil_divide(rows, block_rows_)),
        memory_(allocate(static_cast<std::size_t>(blocks_ * sets * columns) * sizeof(float),
                         Device{}, Purpose::workspace)) {}

  /// Calls body(first_row, last_row, sums) for each block; sums points at its sets, zeroed, one
  /// after the other.
  template <typename Body>
  void fill(Body&& body) {
    const auto width = static_cast<std::size_t>(sets_ * columns_);
#pragma omp parallel for schedule(static) if (blocks_ > 1 && rows_ * columns_ > kernels::kChunk)
    for (std::int64_t b = 0; b < blocks_; ++b) {
      float* sums = memory_.as<float>() + static_cast<std::size_t>(b) * width;
      std::fill_n(sums, width, 0.0f);
      body(b * block_rows_, std::min(rows_, (b + 1) * block_rows_), sums);
    }
  }

  /// Adds the blocks of one set into `output` [columns] of the given type.
  void fold(int set, void* output, DType output_type, bool accumulate) const {
    kernels::dispatch_float(output_type, "a sum over rows", [&]<typename T>(T) {
      fold_typed(memory_.as<float>() + set * columns_, static_cast<T*>(output), accumulate);
    });
  }

 private:
  template <typename T>
  void fold_typed(const float* sums, T* output, bool accumulate) const {
    const FloatTag tag;
    const std::int64_t stride = sets_ * columns_, blocks = blocks_;
    for_each_vector(0, columns_, [=](std::int64_t i, auto extent) {
      auto sum = hn::Zero(tag);
      for (std::int64_t b = 0; b < blocks; ++b)
        sum = hn::Add(sum, load(tag, sums + b * stride + i, extent));
      if (accumulate) sum = hn::Add(sum, load(tag, output + i, extent));
      store(tag, sum, output + i, extent);
    });
  }

  std::int64_t rows_, columns_, sets_;
  std::int64_t block_rows_, blocks_;
  Buffer memory_;
};

// NOLINTNEXTLINE(google-readability-namespace-comments)
}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#endif
