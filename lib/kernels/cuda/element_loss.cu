// SPDX-License-Identifier: Apache-2.0
// Losses that compare numbers one by one on a GPU, to the bit of their definition: a warp adds a
// block.
#include "kernels/cuda/group.cuh"
#include "kernels/cuda/operations.hpp"

namespace tessera::kernels::cuda {
namespace {

inline constexpr int kLanes = 32;
inline constexpr int kWarps = kThreads / kLanes;

struct LossAndSlope {
  double loss;
  float slope;
};

__device__ __forceinline__ LossAndSlope evaluate(ElementLossKind kind, float delta, float d) {
  const float size = fabsf(d);
  const float sign = d > 0 ? 1.0f : d < 0 ? -1.0f : d;  // a NaN stays one
  switch (kind) {
    case ElementLossKind::squared:
      return {static_cast<double>(d) * static_cast<double>(d), 2 * d};
    case ElementLossKind::absolute:
      return {static_cast<double>(size), sign};
    case ElementLossKind::huber:
      break;
  }
  const auto wide = static_cast<double>(delta);
  if (size > delta) return {wide * (static_cast<double>(size) - 0.5 * wide), delta * sign};
  return {0.5 * static_cast<double>(d) * static_cast<double>(d), d};
}

template <typename T>
__global__ __launch_bounds__(kThreads) void element_loss_kernel(ElementLoss args) {
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const std::int64_t block =
      static_cast<std::int64_t>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / kLanes;
  const std::int64_t begin = block * kLossBlock;
  const std::int64_t end = begin + kLossBlock < args.count ? begin + kLossBlock : args.count;
  const auto* prediction = static_cast<const T*>(args.prediction);
  auto* gradient = static_cast<T*>(args.dprediction);
  double sum = 0;
#pragma unroll 1  // more takes registers from other warps
  for (std::int64_t i = begin + lane; i < end; i += kLanes) {
    const LossAndSlope one =
        evaluate(args.kind, args.delta, to_float(prediction[i]) - args.target[i]);
    sum += one.loss;
    if (gradient != nullptr) gradient[i] = round_to<T>(one.slope * args.scale);
  }
  const double total = warp_sum(sum);
  if (lane == 0 && begin < end) args.sums[block] = total;
}

}  // namespace

void element_loss(const Stream& stream, const ElementLoss& args) {
  dispatch_type(args.dtype, "element_loss", [&]<typename T>(T) {
    tessera::cuda::launch<element_loss_kernel<T>>(
        stream, dim3(blocks_for(args.count, kLossBlock * kWarps)), dim3(kThreads), 0, args);
  });
}

}  // namespace tessera::kernels::cuda
