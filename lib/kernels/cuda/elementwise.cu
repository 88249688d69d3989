// SPDX-License-Identifier: Apache-2.0
// Simple loops over flat arrays, and column sums, on a GPU.
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/row_sums.cuh"

namespace tessera::kernels::cuda {
namespace {

template <typename T>
struct Add {
  static constexpr int kWidth = kPackWidth<T>;
  const T* a;
  const T* b;
  T* y;

  template <int N>
  __device__ void operator()(std::int64_t i, Width<N>) const {
    store_map(
        y + i, [](float p, float q) { return p + q; }, load<N>(a + i), load<N>(b + i));
  }
};

template <typename T>
struct Scale {
  static constexpr int kWidth = kPackWidth<T>;
  const T* x;
  T* y;
  float alpha;

  template <int N>
  __device__ void operator()(std::int64_t i, Width<N>) const {
    const float factor = alpha;
    store_map(
        y + i, [factor](float p) { return factor * p; }, load<N>(x + i));
  }
};

template <typename X, typename A>
struct Accumulate {
  static constexpr int kWidth = kPackWidth<X, A>;
  const X* x;
  A* accumulator;
  float alpha;

  template <int N>
  __device__ void operator()(std::int64_t i, Width<N>) const {
    const float factor = alpha;
    store_map(
        accumulator + i, [factor](float p, float before) { return fmaf(factor, p, before); },
        load<N>(x + i), load<N>(accumulator + i));
  }
};

template <typename X, typename Y>
struct Cast {
  static constexpr int kWidth = kPackWidth<X, Y>;
  const X* x;
  Y* y;

  template <int N>
  __device__ void operator()(std::int64_t i, Width<N>) const {
    store_map(
        y + i, [](float p) { return p; }, load<N>(x + i));
  }
};

template <typename X, typename Y>
void launch_cast(const Stream& stream, const void* x, void* y, std::int64_t count) {
  if constexpr (!std::is_same_v<X, Y>) {
    const Cast<X, Y> op{static_cast<const X*>(x), static_cast<Y*>(y)};
    launch_elementwise(stream, op, count, all_aligned<op.kWidth>(op.x, op.y));
  }
}

template <typename Body>
void dispatch_cast(DType dtype, Body&& body) {
  if (dtype == DType::fp64) return body(double{});
  dispatch_type(dtype, "cast on a GPU", body);
}

template <typename T>
struct Column {
  static constexpr int kSets = 1;
  const T* x;
  std::int64_t columns;

  template <int N>
  __device__ void operator()(std::int64_t row, std::int64_t column, float (&sums)[1][N]) const {
    const auto pack = load<N>(x + row * columns + column);
#pragma unroll
    for (int k = 0; k < N; ++k) sums[0][k] += pack[k];
  }
};

}  // namespace

void add(const Stream& stream, const void* a, const void* b, void* y, std::int64_t count,
         DType dtype) {
  dispatch_type(dtype, "add", [&]<typename T>(T) {
    const Add<T> op{static_cast<const T*>(a), static_cast<const T*>(b), static_cast<T*>(y)};
    launch_elementwise(stream, op, count, all_aligned<op.kWidth>(op.a, op.b, op.y));
  });
}

void scale(const Stream& stream, const void* x, float alpha, void* y, std::int64_t count,
           DType dtype) {
  dispatch_type(dtype, "scale", [&]<typename T>(T) {
    const Scale<T> op{static_cast<const T*>(x), static_cast<T*>(y), alpha};
    launch_elementwise(stream, op, count, all_aligned<op.kWidth>(op.x, op.y));
  });
}

void accumulate(const Stream& stream, const void* x, DType x_type, float alpha, void* accumulator,
                DType accumulator_type, std::int64_t count) {
  dispatch_type(x_type, "accumulate", [&]<typename X>(X) {
    dispatch_type(accumulator_type, "accumulate", [&]<typename A>(A) {
      const Accumulate<X, A> op{static_cast<const X*>(x), static_cast<A*>(accumulator), alpha};
      launch_elementwise(stream, op, count, all_aligned<op.kWidth>(op.x, op.accumulator));
    });
  });
}

void cast(const Stream& stream, const void* x, DType x_type, void* y, DType y_type,
          std::int64_t count) {
  if (x_type == y_type) {
    if (x != y) stream.copy(y, x, static_cast<std::size_t>(count) * size_of(x_type));
    return;
  }
  dispatch_cast(x_type, [&]<typename X>(X) {
    dispatch_cast(y_type, [&]<typename Y>(Y) { launch_cast<X, Y>(stream, x, y, count); });
  });
}

void column_sum(const Stream& stream, const ColumnSum& args) {
  const RowSums sums(stream, args.rows, args.columns, 1, kRowParts);
  dispatch_type(args.dtype, "column_sum", [&]<typename T>(T) {
    const Column<T> terms{static_cast<const T*>(args.x), args.columns};
    constexpr int kWide = kPackWidth<T>;
    dispatch_width<kWide>(args.columns % kWide == 0 && is_aligned<kWide>(terms.x),
                          [&]<int N>(Width<N>) { sums.template fill<N>(terms); });
  });
  sums.fold(0, args.y, args.output_type, args.accumulate);
}

}  // namespace tessera::kernels::cuda
