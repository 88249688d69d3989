// SPDX-License-Identifier: Apache-2.0
// Cross-entropy over a slice of the vocabulary on a GPU: one block a row.
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/row_exp.cuh"

namespace tessera::kernels::cuda {
namespace {

template <typename T>
__device__ __forceinline__ const T* logits_of(const CrossEntropySlice& args, std::int64_t row) {
  return static_cast<const T*>(args.logits) + row * args.columns;
}

/// A target outside the vocabulary gives NaN: targets on a GPU are not looked at before the launch.
template <typename T>
__device__ float logit_of_target(const CrossEntropySlice& args, std::int64_t row) {
  const std::int64_t target = args.targets[row], own = target - args.slice.first;
  if (target >= args.slice.vocabulary) return nanf("");
  const bool here = target >= 0 && own >= 0 && own < args.valid_columns;
  return here ? to_float(logits_of<T>(args, row)[own]) : 0.0f;
}

template <typename T, int N, int kBlock, int kPacks>
__global__ __launch_bounds__(kBlock) void cross_entropy_begin_kernel(CrossEntropySlice args) {
  __shared__ WarpSlots slots[2];
  const std::int64_t row = blockIdx.x;
  const int lane = static_cast<int>(threadIdx.x);
  if (args.targets[row] < 0) {
    if (lane == 0)
      args.own_largest[row] = args.largest[row] = args.sums[row] = args.sums[args.rows + row] = 0;
    return;
  }
  const HeldRow<T, N, kBlock, kPacks> x(logits_of<T>(args, row), args.columns, lane);
  RunningExp running;
  x.for_each([&](auto i, const Pack<T, N>& pack) { running.add(i, pack, args.valid_columns); });
  const RowExp own = running.over_block<kBlock>(slots);
  if (lane != 0) return;
  args.own_largest[row] = args.largest[row] = own.largest;
  args.sums[row] = own.sum;
  args.sums[args.rows + row] = logit_of_target<T>(args, row);
}

__global__ __launch_bounds__(kThreads) void cross_entropy_rescale_kernel(CrossEntropySlice args) {
  const std::int64_t row = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (row < args.rows) args.sums[row] *= expf(args.own_largest[row] - args.largest[row]);
}

template <typename T, int N>
__global__ __launch_bounds__(kThreads) void cross_entropy_finish_kernel(CrossEntropySlice args) {
  const std::int64_t row = blockIdx.x, target = args.targets[row];
  const float largest = args.largest[row], sum = args.sums[row];
  const double log_sum = log(static_cast<double>(sum));
  const double distance =
      static_cast<double>(args.sums[args.rows + row]) - static_cast<double>(largest);
  if (threadIdx.x == 0)
    args.losses[row] = target < 0 ? 0.0f : static_cast<float>(log_sum - distance);
  if (args.dlogits == nullptr) return;
  const T* x = logits_of<T>(args, row);
  T* dx = static_cast<T*>(args.dlogits) + row * args.columns;
  const std::int64_t own = target < 0 ? -1 : target - args.slice.first;
  const float factor = args.scale / sum;
  const float at_target = static_cast<float>(expm1(distance - log_sum)) * args.scale;
  for (std::int64_t i = std::int64_t{threadIdx.x} * N; i < args.columns;
       i += std::int64_t{kThreads} * N) {
    const auto pack = load<N>(x + i);
    Pack<T, N> out;
#pragma unroll
    for (int k = 0; k < N; ++k) {
      float value = expf(pack[k] - largest) * factor;
      if (i + k == own) value = at_target;
      out.values[k] = round_to<T>(target < 0 || i + k >= args.valid_columns ? 0.0f : value);
    }
    store(dx + i, out);
  }
}

}  // namespace

void cross_entropy_slice_begin(const Stream& stream, const CrossEntropySlice& args) {
  dispatch_type(args.dtype, "cross_entropy", [&]<typename T>(T) {
    const bool aligned = all_aligned<kPackWidth<T>>(static_cast<const T*>(args.logits));
    dispatch_row<T>(args.columns, aligned, [&]<int N, int kBlock, int kPacks>() {
      tessera::cuda::launch<cross_entropy_begin_kernel<T, N, kBlock, kPacks>>(
          stream, dim3(blocks_for(args.rows, 1)), dim3(kBlock), 0, args);
    });
  });
}

void cross_entropy_slice_rescale(const Stream& stream, const CrossEntropySlice& args) {
  tessera::cuda::launch<cross_entropy_rescale_kernel>(stream, dim3(blocks_for(args.rows, kThreads)),
                                                      dim3(kThreads), 0, args);
}

void cross_entropy_slice_finish(const Stream& stream, const CrossEntropySlice& args) {
  dispatch_type(args.dtype, "cross_entropy", [&]<typename T>(T) {
    constexpr int kWide = kPackWidth<T>;
    const bool wide =
        args.columns % kWide == 0 &&
        all_aligned<kWide>(static_cast<const T*>(args.logits), static_cast<const T*>(args.dlogits));
    dispatch_width<kWide>(wide, [&]<int N>(Width<N>) {
      tessera::cuda::launch<cross_entropy_finish_kernel<T, N>>(
          stream, dim3(blocks_for(args.rows, 1)), dim3(kThreads), 0, args);
    });
  });
}

}  // namespace tessera::kernels::cuda
