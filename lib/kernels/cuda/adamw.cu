// SPDX-License-Identifier: Apache-2.0
// The Adam update on a GPU: one pass, and the bits of a CPU with fused multiply-add. Nothing here
// may be contracted beyond the fused operations that are written.
#include <cmath>

#include "kernels/cuda/master.cuh"
#include "kernels/cuda/operations.hpp"

namespace tessera::kernels::cuda {
namespace {

/// The numbers that all elements share, derived in fp64 and rounded once, as on the CPU.
struct AdamWFactors {
  explicit AdamWFactors(const AdamW& args)
      : scale(args.gradient_scale),
        l2(args.decoupled ? 0.0f : static_cast<float>(args.weight_decay)),
        keep(args.decoupled ? static_cast<float>(1 - args.lr * args.weight_decay) : 1.0f),
        beta1(static_cast<float>(args.beta1)),
        rest1(static_cast<float>(1 - args.beta1)),
        beta2(static_cast<float>(args.beta2)),
        rest2(static_cast<float>(1 - args.beta2)),
        root(static_cast<float>(1 / std::sqrt(args.correction2))),
        epsilon(static_cast<float>(args.epsilon)),
        step(static_cast<float>(-args.lr / args.correction1)) {}

  float scale, l2, keep, beta1, rest1, beta2, rest2, root, epsilon, step;
};

template <typename Master, typename G>
struct AdamWOp {
  static constexpr int kWidth = 4;  // 16 bytes of fp32
  Master master;
  const G* gradient;
  float* exp_avg;
  float* exp_avg_sq;
  AdamWFactors f;

  template <int N>
  __device__ void operator()(std::int64_t i, Width<N>) const {
    const auto gradients = load<N>(gradient + i);
    auto ms = load<N>(exp_avg + i), vs = load<N>(exp_avg_sq + i);
    auto weights = master.template get<N>(i);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const float w = weights.values[k];
      const float g = fmaf(f.l2, w, __fmul_rn(gradients[k], f.scale));
      const float m = fmaf(f.beta1, ms[k], __fmul_rn(f.rest1, g));
      const float v = fmaf(f.beta2, vs[k], __fmul_rn(__fmul_rn(f.rest2, g), g));
      const float denominator = fmaf(__fsqrt_rn(v), f.root, f.epsilon);
      const float change = __fdiv_rn(__fmul_rn(f.step, m), denominator);
      weights.values[k] = fmaf(w, f.keep, change);
      ms.values[k] = m;
      vs.values[k] = v;
    }
    master.set(i, weights);
    store(exp_avg + i, ms);
    store(exp_avg_sq + i, vs);
  }
};

}  // namespace

void adamw(const Stream& stream, const AdamW& args) {
  dispatch_master(args.parameter, args.low, args.rounded, [&]<typename Master>(Master master) {
    dispatch_type(args.gradient_type, "adamw", [&]<typename G>(G) {
      const AdamWOp<Master, G> op{master, static_cast<const G*>(args.gradient), args.exp_avg,
                                  args.exp_avg_sq, AdamWFactors(args)};
      const bool wide = master.template is_wide<op.kWidth>() &&
                        all_aligned<op.kWidth>(op.gradient, op.exp_avg, op.exp_avg_sq);
      launch_elementwise(stream, op, args.count, wide);
    });
  });
}

}  // namespace tessera::kernels::cuda
