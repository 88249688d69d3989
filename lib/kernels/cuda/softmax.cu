// SPDX-License-Identifier: Apache-2.0
// Softmax over the last dimension on a GPU: one block a row.
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/row_exp.cuh"

namespace tessera::kernels::cuda {
namespace {

template <typename T, int N, int kBlock, int kPacks>
__global__ __launch_bounds__(kBlock) void softmax_forward_kernel(SoftmaxForward args) {
  __shared__ WarpSlots slots[2];
  const std::int64_t offset = blockIdx.x * args.columns;
  T* y = static_cast<T*>(args.y) + offset;
  const HeldRow<T, N, kBlock, kPacks> x(static_cast<const T*>(args.x) + offset, args.columns,
                                        static_cast<int>(threadIdx.x));
  RunningExp running;
  x.for_each([&](auto i, const Pack<T, N>& pack) { running.add(i, pack, args.columns); });
  const RowExp whole = running.over_block<kBlock>(slots);
  const float factor = 1.0f / whole.sum;
  x.for_each([&](auto i, const Pack<T, N>& pack) {
    store_map(
        y + i, [&](float value) { return expf(value - whole.largest) * factor; }, pack);
  });
}

template <typename T, int N, int kBlock, int kPacks>
__global__ __launch_bounds__(kBlock) void softmax_backward_kernel(SoftmaxBackward args) {
  __shared__ WarpSlots slots;
  const std::int64_t offset = blockIdx.x * args.columns;
  const T* dy = static_cast<const T*>(args.dy) + offset;
  T* dx = static_cast<T*>(args.dx) + offset;
  const HeldRow<T, N, kBlock, kPacks> y(static_cast<const T*>(args.y) + offset, args.columns,
                                        static_cast<int>(threadIdx.x));
  float sum = 0;
  y.for_each([&](auto i, const Pack<T, N>& pack) {
    const auto gradient = load<N>(dy + i);
#pragma unroll
    for (int k = 0; k < N; ++k) sum = fmaf(gradient[k], pack[k], sum);
  });
  const float mean = group_sum<kBlock>(sum, slots);
  y.for_each([&](auto i, const Pack<T, N>& pack) {
    store_map(
        dx + i, [&](float value, float gradient) { return value * (gradient - mean); }, pack,
        load<N>(dy + i));
  });
}

}  // namespace

void softmax_forward(const Stream& stream, const SoftmaxForward& args) {
  dispatch_type(args.dtype, "softmax", [&]<typename T>(T) {
    constexpr int kWide = kPackWidth<T>;
    const bool aligned =
        all_aligned<kWide>(static_cast<const T*>(args.x), static_cast<const T*>(args.y));
    dispatch_row<T>(args.columns, aligned, [&]<int N, int kBlock, int kPacks>() {
      tessera::cuda::launch<softmax_forward_kernel<T, N, kBlock, kPacks>>(
          stream, dim3(blocks_for(args.rows, 1)), dim3(kBlock), 0, args);
    });
  });
}

void softmax_backward(const Stream& stream, const SoftmaxBackward& args) {
  dispatch_type(args.dtype, "softmax", [&]<typename T>(T) {
    constexpr int kWide = kPackWidth<T>;
    const bool aligned =
        all_aligned<kWide>(static_cast<const T*>(args.dy), static_cast<const T*>(args.y),
                           static_cast<const T*>(args.dx));
    dispatch_row<T>(args.columns, aligned, [&]<int N, int kBlock, int kPacks>() {
      tessera::cuda::launch<softmax_backward_kernel<T, N, kBlock, kPacks>>(
          stream, dim3(blocks_for(args.rows, 1)), dim3(kBlock), 0, args);
    });
  });
}

}  // namespace tessera::kernels::cuda
