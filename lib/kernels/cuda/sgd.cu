// SPDX-License-Identifier: Apache-2.0
// Stochastic gradient descent on a GPU, with the bits of a CPU with fused multiply-add.
#include "kernels/cuda/master.cuh"
#include "kernels/cuda/operations.hpp"

namespace tessera::kernels::cuda {
namespace {

/// What becomes of the momentum buffer.
enum class Momentum { none, first, later };

template <typename Master, typename G, Momentum kMomentum>
struct SgdOp {
  static constexpr int kWidth = 4;  // 16 bytes of fp32
  Master master;
  const G* gradient;
  float* buffer;
  float scale, decay, momentum, rest, step;
  bool nesterov;

  template <int N>
  __device__ void operator()(std::int64_t i, Width<N>) const {
    const auto gradients = load<N>(gradient + i);
    Pack<float, N> buffers;
    if constexpr (kMomentum == Momentum::later) buffers = load<N>(buffer + i);
    auto weights = master.template get<N>(i);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const float w = weights.values[k];
      const float g = fmaf(decay, w, __fmul_rn(gradients[k], scale));
      float direction = g;
      if constexpr (kMomentum != Momentum::none) {
        float after = g;
        if constexpr (kMomentum == Momentum::later)
          after = fmaf(momentum, buffers[k], __fmul_rn(rest, g));
        buffers.values[k] = after;
        direction = nesterov ? fmaf(momentum, after, g) : after;
      }
      weights.values[k] = fmaf(step, direction, w);
    }
    master.set(i, weights);
    if constexpr (kMomentum != Momentum::none) store(buffer + i, buffers);
  }
};

template <Momentum kMomentum, typename Master, typename G>
void launch_sgd(const Stream& stream, const Sgd& args, Master master, const G* gradient) {
  const SgdOp<Master, G, kMomentum> op{master,
                                       gradient,
                                       args.momentum_buffer,
                                       args.gradient_scale,
                                       static_cast<float>(args.weight_decay),
                                       static_cast<float>(args.momentum),
                                       static_cast<float>(1 - args.dampening),
                                       static_cast<float>(-args.lr),
                                       args.nesterov};
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
        launch_sgd<Momentum::none>(stream, args, master, gradient);
      else if (args.first_step)
        launch_sgd<Momentum::first>(stream, args, master, gradient);
      else
        launch_sgd<Momentum::later>(stream, args, master, gradient);
    });
  });
}

}  // namespace tessera::kernels::cuda
