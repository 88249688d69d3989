// SPDX-License-Identifier: Apache-2.0
// Stochastic gradient descent on a GPU, with the bits of a CPU with fused multiply-add.
#include "kernels/cuda/master.cuh"
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/verdict.cuh"

namespace tessera::kernels::cuda {
namespace {

/// What depends on how many updates there were.
struct SgdNumbers {
  float step;
  bool first;
};

template <typename Master, typename G, bool kMomentum>
struct SgdOp {
  static constexpr int kWidth = 4;  // 16 bytes of fp32
  Master master;
  const G* gradient;
  float* buffer;
  float decay, momentum, rest;
  bool nesterov;
  SgdNumbers usual, after_skip;
  Verdict verdict;

  template <int N>
  __device__ void operator()(std::int64_t i, Width<N>) const {
    const auto gradients = load<N>(gradient + i);
    Pack<float, N> buffers;
    if constexpr (kMomentum) buffers = load<N>(buffer + i);
    auto weights = master.template get<N>(i);
    const SgdNumbers n = verdict.choose(usual, after_skip);
    const float scale = verdict.scale();
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const float w = weights.values[k];
      const float g = fmaf(decay, w, __fmul_rn(gradients[k], scale));
      float direction = g;
      if constexpr (kMomentum) {
        const float later = fmaf(momentum, buffers[k], __fmul_rn(rest, g));
        const float after = n.first ? g : later;
        buffers.values[k] = after;
        direction = nesterov ? fmaf(momentum, after, g) : after;
      }
      weights.values[k] = fmaf(n.step, direction, w);
    }
    if (!verdict.applied()) return;
    master.set(i, weights);
    if constexpr (kMomentum) store(buffer + i, buffers);
  }
};

template <bool kMomentum, typename Master, typename G>
void launch_sgd(const Stream& stream, const Sgd& args, Master master, const G* gradient) {
  const SgdOp<Master, G, kMomentum> op{
      master,
      gradient,
      args.momentum_buffer,
      static_cast<float>(args.weight_decay),
      static_cast<float>(args.momentum),
      static_cast<float>(1 - args.dampening),
      args.nesterov,
      {static_cast<float>(-args.lr), args.first_step},
      {static_cast<float>(-args.after_skip.lr), args.after_skip.first_step},
      {args.gradient_scale, args.decision}};
  const bool wide =
      master.template is_wide<op.kWidth>() && all_aligned<op.kWidth>(op.gradient, op.buffer);
  launch_elementwise(stream, op, args.count, wide);
}

}  // namespace

void sgd(const Stream& stream, const Sgd& args) {
  dispatch_master(args.parameter, args.low, args.rounded, [&](auto master) {
    dispatch_type(args.gradient_type, "sgd", [&]<typename G>(G) {
      const auto* gradient = static_cast<const G*>(args.gradient);
      if (args.momentum_buffer == nullptr)
        launch_sgd<false>(stream, args, master, gradient);
      else
        launch_sgd<true>(stream, args, master, gradient);
    });
  });
}

}  // namespace tessera::kernels::cuda
