// SPDX-License-Identifier: Apache-2.0
// Simple loops over flat arrays on the CPU.
#include "tessera/kernels/elementwise.hpp"

#include "kernels/cpu/parallel.hpp"
#include "kernels/cuda/operations.hpp"
#include "kernels/dispatch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/elementwise.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
#include "kernels/cpu/row_sums-inl.hpp"
#include "kernels/cpu/vector-inl.hpp"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {

void add_arrays(const void* a, const void* b, void* y, std::int64_t count, DType dtype) {
  kernels::dispatch_float(dtype, "add", [&]<typename T>(T) {
    const auto *pa = static_cast<const T*>(a), *pb = static_cast<const T*>(b);
    auto* py = static_cast<T*>(y);
    kernels::parallel_chunks(count, [=](std::int64_t begin, std::int64_t end) {
      const FloatTag tag;
      for_each_vector(begin, end, [=](std::int64_t i, auto extent) {
        store(tag, hn::Add(load(tag, pa + i, extent), load(tag, pb + i, extent)), py + i, extent);
      });
    });
  });
}

void scale_array(const void* x, float alpha, void* y, std::int64_t count, DType dtype) {
  kernels::dispatch_float(dtype, "scale", [&]<typename T>(T) {
    const auto* px = static_cast<const T*>(x);
    auto* py = static_cast<T*>(y);
    kernels::parallel_chunks(count, [=](std::int64_t begin, std::int64_t end) {
      const FloatTag tag;
      const auto factor = hn::Set(tag, alpha);
      for_each_vector(begin, end, [=](std::int64_t i, auto extent) {
        store(tag, hn::Mul(factor, load(tag, px + i, extent)), py + i, extent);
      });
    });
  });
}

template <typename X, typename A>
void accumulate_typed(const X* x, float alpha, A* accumulator, std::int64_t count) {
  kernels::parallel_chunks(count, [=](std::int64_t begin, std::int64_t end) {
    const FloatTag tag;
    const auto factor = hn::Set(tag, alpha);
    for_each_vector(begin, end, [=](std::int64_t i, auto extent) {
      const auto sum =
          hn::MulAdd(factor, load(tag, x + i, extent), load(tag, accumulator + i, extent));
      store(tag, sum, accumulator + i, extent);
    });
  });
}

void accumulate_arrays(const void* x, DType x_type, float alpha, void* accumulator,
                       DType accumulator_type, std::int64_t count) {
  kernels::dispatch_float(x_type, "accumulate", [&]<typename X>(X) {
    kernels::dispatch_float(accumulator_type, "accumulate", [&]<typename A>(A) {
      accumulate_typed(static_cast<const X*>(x), alpha, static_cast<A*>(accumulator), count);
    });
  });
}

template <typename T>
void add_rows(const T* x, std::int64_t rows, std::int64_t columns, float* sums) {
  const FloatTag tag;
  std::int64_t r = 0;
  for (; r + 4 <= rows; r += 4) {
    const T* row = x + r * columns;
    for_each_vector(0, columns, [=](std::int64_t i, auto extent) {
      const auto first = hn::Add(load(tag, row + i, extent), load(tag, row + columns + i, extent));
      const auto second = hn::Add(load(tag, row + 2 * columns + i, extent),
                                  load(tag, row + 3 * columns + i, extent));
      const auto before = load(tag, sums + i, extent);
      store(tag, hn::Add(before, hn::Add(first, second)), sums + i, extent);
    });
  }
  for (; r < rows; ++r) {
    for_each_vector(0, columns, [=, row = x + r * columns](std::int64_t i, auto extent) {
      const auto before = load(tag, sums + i, extent);
      store(tag, hn::Add(before, load(tag, row + i, extent)), sums + i, extent);
    });
  }
}

void column_sum_cpu(const kernels::ColumnSum& args) {
  RowSums sums(args.rows, args.columns, 1);
  kernels::dispatch_float(args.dtype, "column_sum", [&]<typename T>(T) {
    const auto* x = static_cast<const T*>(args.x);
    sums.fill([&](std::int64_t first, std::int64_t last, float* block) {
      add_rows(x + first * args.columns, last - first, args.columns, block);
    });
  });
  sums.fold(0, args.y, args.output_type, args.accumulate);
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(add_arrays);
HWY_EXPORT(scale_array);
HWY_EXPORT(accumulate_arrays);
HWY_EXPORT(column_sum_cpu);

}  // namespace

namespace kernels {

void add(const Stream& stream, const void* a, const void* b, void* y, std::int64_t count,
         DType dtype) {
  if (!stream.device().is_cpu()) return cuda::add(stream, a, b, y, count, dtype);
  HWY_DYNAMIC_DISPATCH(add_arrays)(a, b, y, count, dtype);
}

void scale(const Stream& stream, const void* x, float alpha, void* y, std::int64_t count,
           DType dtype) {
  if (!stream.device().is_cpu()) return cuda::scale(stream, x, alpha, y, count, dtype);
  HWY_DYNAMIC_DISPATCH(scale_array)(x, alpha, y, count, dtype);
}

void accumulate(const Stream& stream, const void* x, DType x_type, float alpha, void* accumulator,
                DType accumulator_type, std::int64_t count) {
  if (!stream.device().is_cpu())
    return cuda::accumulate(stream, x, x_type, alpha, accumulator, accumulator_type, count);
  HWY_DYNAMIC_DISPATCH(accumulate_arrays)(x, x_type, alpha, accumulator, accumulator_type, count);
}

void cast(const Stream& stream, const void* x, DType x_type, void* y, DType y_type,
          std::int64_t count) {
  if (!stream.device().is_cpu()) return cuda::cast(stream, x, x_type, y, y_type, count);
  const auto* source = static_cast<const std::byte*>(x);
  auto* target = static_cast<std::byte*>(y);
  parallel_chunks(count, [&](std::int64_t begin, std::int64_t end) {
    const auto at = static_cast<std::size_t>(begin);
    convert(source + at * size_of(x_type), x_type, target + at * size_of(y_type), y_type,
            static_cast<std::size_t>(end - begin));
  });
}

void column_sum(const Stream& stream, const ColumnSum& args) {
  if (!stream.device().is_cpu()) return cuda::column_sum(stream, args);
  HWY_DYNAMIC_DISPATCH(column_sum_cpu)(args);
}

}  // namespace kernels
}  // namespace tessera
#endif
