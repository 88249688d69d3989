// SPDX-License-Identifier: Apache-2.0
// Softmax cross-entropy fused with its gradient on a GPU: one block a row, which it reads once
// where registers hold it.
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/row_exp.cuh"

namespace tessera::kernels::cuda {
namespace {

/// dlogits of one pack: `factor` is scale / sum, `at_target` what the target's element becomes.
template <typename Index, typename T, int N>
__device__ __forceinline__ void store_gradient(T* dlogits, Index i, const Pack<T, N>& pack,
                                               const CrossEntropy& args, float largest,
                                               float factor, std::int64_t target, float at_target) {
  Pack<T, N> out;
#pragma unroll
  for (int k = 0; k < N; ++k) {
    float value = i + k < args.valid_columns ? expf(pack[k] - largest) * factor : 0.0f;
    if (i + k == target) value = at_target;
    out.values[k] = round_to<T>(value);
  }
  store(dlogits + i, out);
}

template <typename T, int N>
__device__ __forceinline__ void store_zeros(T* dlogits, std::int64_t columns, int lane,
                                            int threads) {
  Pack<T, N> zeros;
#pragma unroll
  for (int k = 0; k < N; ++k) zeros.values[k] = round_to<T>(0.0f);
  for (std::int64_t i = static_cast<std::int64_t>(lane) * N; i < columns;
       i += static_cast<std::int64_t>(threads) * N)
    store(dlogits + i, zeros);
}

/// A target outside the vocabulary gives NaN: targets on a GPU are not looked at before the launch.
template <typename T, int N, int kBlock, int kPacks>
__global__ __launch_bounds__(kBlock) void cross_entropy_kernel(CrossEntropy args) {
  __shared__ WarpSlots slots[2];
  const std::int64_t row = blockIdx.x, target = args.targets[row];
  const int lane = static_cast<int>(threadIdx.x);
  const T* logits = static_cast<const T*>(args.logits) + row * args.columns;
  T* dlogits =
      args.dlogits != nullptr ? static_cast<T*>(args.dlogits) + row * args.columns : nullptr;
  if (target < 0) {
    if (lane == 0) args.losses[row] = 0;
    if (dlogits != nullptr) store_zeros<T, N>(dlogits, args.columns, lane, kBlock);
    return;
  }
  const float at_target = target < args.valid_columns ? to_float(logits[target]) : nanf("");
  const HeldRow<T, N, kBlock, kPacks> x(logits, args.columns, lane);
  RunningExp running;
  x.for_each([&](auto i, const Pack<T, N>& pack) { running.add(i, pack, args.valid_columns); });
  // Its barriers also part the reading of the target's logit from writing over it.
  const RowExp whole = running.over_block<kBlock>(slots);
  const double log_sum = log(static_cast<double>(whole.sum));
  const double distance = static_cast<double>(at_target) - static_cast<double>(whole.largest);
  if (lane == 0) args.losses[row] = static_cast<float>(log_sum - distance);
  if (dlogits == nullptr) return;
  const float scale = args.variables != nullptr ? args.variables->gradient_scale : args.scale;
  // e^l - 1 keeps its digits when the target is nearly certain.
  const float gradient = static_cast<float>(expm1(distance - log_sum)) * scale;
  const float factor = scale / whole.sum;
  x.for_each([&](auto i, const Pack<T, N>& pack) {
    store_gradient(dlogits, i, pack, args, whole.largest, factor, target, gradient);
  });
}

}  // namespace

void cross_entropy(const Stream& stream, const CrossEntropy& args) {
  dispatch_type(args.dtype, "cross_entropy", [&]<typename T>(T) {
    constexpr int kWide = kPackWidth<T>;
    const bool aligned =
        all_aligned<kWide>(static_cast<const T*>(args.logits), static_cast<const T*>(args.dlogits));
    dispatch_row<T>(args.columns, aligned, [&]<int N, int kBlock, int kPacks>() {
      tessera::cuda::launch<cross_entropy_kernel<T, N, kBlock, kPacks>>(
          stream, dim3(blocks_for(args.rows, 1)), dim3(kBlock), 0, args);
    });
  });
}

}  // namespace tessera::kernels::cuda
