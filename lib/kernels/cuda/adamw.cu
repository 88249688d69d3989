// SPDX-License-Identifier: Apache-2.0
// The Adam update on a GPU: one pass, and the bits of a CPU with fused multiply-add. Nothing here
// may be contracted beyond the fused operations that are written.
#include <cmath>

#include "kernels/cuda/master.cuh"
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/verdict.cuh"

namespace tessera::kernels::cuda {
namespace {

/// The numbers that all elements share, derived in fp64 and rounded once, as on the CPU: those of
/// every step, and those that depend on how many updates there were.
struct AdamWConstants {
  explicit AdamWConstants(const AdamW& args)
      : l2(args.decoupled ? 0.0f : static_cast<float>(args.weight_decay)),
        beta2(static_cast<float>(args.beta2)),
        rest2(static_cast<float>(1 - args.beta2)),
        epsilon(static_cast<float>(args.epsilon)) {}

  float l2, beta2, rest2, epsilon;
};
struct AdamWNumbers {
  AdamWNumbers(const AdamW& args, const AdamW::Numbers& of)
      : keep(args.decoupled ? static_cast<float>(1 - of.lr * args.weight_decay) : 1.0f),
        beta1(static_cast<float>(of.beta1)),
        rest1(static_cast<float>(1 - of.beta1)),
        root(static_cast<float>(1 / std::sqrt(of.correction2))),
        step(static_cast<float>(-of.lr / of.correction1)) {}

  float keep, beta1, rest1, root, step;
};

template <typename Master, typename G>
struct AdamWOp {
  static constexpr int kWidth = 4;  // 16 bytes of fp32
  Master master;
  const G* gradient;
  float* exp_avg;
  float* exp_avg_sq;
  AdamWConstants f;
  AdamWNumbers usual, after_skip;
  Verdict verdict;

  template <int N>
  __device__ void operator()(std::int64_t i, Width<N>) const {
    const auto gradients = load<N>(gradient + i);
    auto ms = load<N>(exp_avg + i), vs = load<N>(exp_avg_sq + i);
    auto weights = master.template get<N>(i);
    const AdamWNumbers n = verdict.choose(usual, after_skip);
    const float scale = verdict.scale();
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const float w = weights.values[k];
      const float g = fmaf(f.l2, w, __fmul_rn(gradients[k], scale));
      const float m = fmaf(n.beta1, ms[k], __fmul_rn(n.rest1, g));
      const float v = fmaf(f.beta2, vs[k], __fmul_rn(__fmul_rn(f.rest2, g), g));
      const float denominator = fmaf(__fsqrt_rn(v), n.root, f.epsilon);
      const float change = __fdiv_rn(__fmul_rn(n.step, m), denominator);
      weights.values[k] = fmaf(w, n.keep, change);
      ms.values[k] = m;
      vs.values[k] = v;
    }
    // Not before the loads: most steps are applied, and these need not wait for the verdict.
    if (!verdict.applied()) return;
    master.set(i, weights);
    store(exp_avg + i, ms);
    store(exp_avg_sq + i, vs);
  }
};

}  // namespace

void adamw(const Stream& stream, const AdamW& args) {
  dispatch_master(args.parameter, args.low, args.rounded, [&]<typename Master>(Master master) {
    dispatch_type(args.gradient_type, "adamw", [&]<typename G>(G) {
      const AdamWOp<Master, G> op{
          master,
          static_cast<const G*>(args.gradient),
          args.exp_avg,
          args.exp_avg_sq,
          AdamWConstants(args),
          AdamWNumbers(args, {args.lr, args.beta1, args.correction1, args.correction2}),
          AdamWNumbers(args, args.after_skip),
          {args.gradient_scale, args.decision}};
      const bool wide = master.template is_wide<op.kWidth>() &&
                        all_aligned<op.kWidth>(op.gradient, op.exp_avg, op.exp_avg_sq);
      launch_elementwise(stream, op, args.count, wide);
    });
  });
}

}  // namespace tessera::kernels::cuda
