// SPDX-License-Identifier: Apache-2.0
// Losses that compare numbers one by one, on the CPU. Plain loops: a network has far fewer outputs
// than products.
#include "tessera/kernels/element_loss.hpp"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cuda/operations.hpp"
#include "kernels/dispatch.hpp"

namespace tessera::kernels {
namespace {

constexpr int kLanes = 32;  // of the definition

struct LossAndSlope {
  double loss;
  float slope;
};

LossAndSlope evaluate(ElementLossKind kind, float delta, float d) {
  const float size = std::fabs(d);
  const float sign = d > 0 ? 1.0f : d < 0 ? -1.0f : d;  // a NaN stays one
  switch (kind) {
    case ElementLossKind::squared:
      return {static_cast<double>(d) * d, 2 * d};
    case ElementLossKind::absolute:
      return {size, sign};
    case ElementLossKind::huber:
      if (size > delta) return {static_cast<double>(delta) * (size - 0.5 * delta), delta * sign};
      return {0.5 * static_cast<double>(d) * d, d};
  }
  return {};
}

float widen(float x) {
  return x;
}
template <typename T>
float widen(T x) {
  return x.to_float();
}
template <typename T>
T narrow(float x) {
  if constexpr (std::is_same_v<T, float>)
    return x;
  else
    return T::from_float(x);
}

template <typename T>
double block_loss(const ElementLoss& args, std::int64_t begin, std::int64_t end) {
  const auto* prediction = static_cast<const T*>(args.prediction);
  auto* gradient = static_cast<T*>(args.dprediction);
  double sums[kLanes] = {};
  for (std::int64_t i = begin; i < end; ++i) {
    const auto [loss, slope] =
        evaluate(args.kind, args.delta, widen(prediction[i]) - args.target[i]);
    sums[(i - begin) % kLanes] += loss;
    if (gradient != nullptr) gradient[i] = narrow<T>(slope * args.scale);
  }
  for (int distance = kLanes / 2; distance > 0; distance /= 2)
    for (int lane = 0; lane < distance; ++lane) sums[lane] += sums[lane + distance];
  return sums[0];
}

}  // namespace

void element_loss(const Stream& stream, const ElementLoss& args) {
  if (!stream.device().is_cpu()) return cuda::element_loss(stream, args);
  static_assert(kChunk % kLossBlock == 0);
  dispatch_float(args.dtype, "element_loss", [&]<typename T>(T) {
    parallel_chunks(args.count, [&](std::int64_t begin, std::int64_t end) {
      for (; begin < end; begin += kLossBlock)
        args.sums[begin / kLossBlock] =
            block_loss<T>(args, begin, std::min(begin + kLossBlock, end));
    });
  });
}

}  // namespace tessera::kernels
