// SPDX-License-Identifier: Apache-2.0
// The Adam update on the CPU: one pass that memory bandwidth bounds, so division and square root
// stay exact.
#include "tessera/kernels/adamw.hpp"

#include <cmath>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cuda/operations.hpp"
#include "kernels/dispatch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/adamw.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
#include "kernels/cpu/split_master-inl.hpp"
#include "kernels/cpu/vector-inl.hpp"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {

/// The numbers that all elements share, derived in fp64 and rounded once.
struct AdamWFactors {
  explicit AdamWFactors(const kernels::AdamW& args)
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
void adamw_range(const AdamWFactors& f, Master master, const G* gradient, float* exp_avg,
                 float* exp_avg_sq, std::int64_t begin, std::int64_t end) {
  const FloatTag tag;
  const auto scale = hn::Set(tag, f.scale), l2 = hn::Set(tag, f.l2), keep = hn::Set(tag, f.keep);
  const auto beta1 = hn::Set(tag, f.beta1), rest1 = hn::Set(tag, f.rest1);
  const auto beta2 = hn::Set(tag, f.beta2), rest2 = hn::Set(tag, f.rest2);
  const auto root = hn::Set(tag, f.root), epsilon = hn::Set(tag, f.epsilon);
  const auto step = hn::Set(tag, f.step);
  for_each_vector(begin, end, [=](std::int64_t i, auto extent) {
    const auto w = master.get(tag, i, extent);
    const auto g = hn::MulAdd(l2, w, hn::Mul(load(tag, gradient + i, extent), scale));
    const auto m = hn::MulAdd(beta1, load(tag, exp_avg + i, extent), hn::Mul(rest1, g));
    const auto v =
        hn::MulAdd(beta2, load(tag, exp_avg_sq + i, extent), hn::Mul(hn::Mul(rest2, g), g));
    const auto denominator = hn::MulAdd(hn::Sqrt(v), root, epsilon);
    const auto change = hn::Div(hn::Mul(step, m), denominator);
    master.set(tag, hn::MulAdd(w, keep, change), i, extent);
    store(tag, m, exp_avg + i, extent);
    store(tag, v, exp_avg_sq + i, extent);
  });
}

void adamw_cpu(const kernels::AdamW& args) {
  const AdamWFactors factors(args);
  dispatch_master(args, [&](auto master) {
    kernels::dispatch_float(args.gradient_type, "adamw", [&]<typename G>(G) {
      const auto* gradient = static_cast<const G*>(args.gradient);
      float *m = args.exp_avg, *v = args.exp_avg_sq;
      kernels::parallel_chunks(args.count, [=](std::int64_t begin, std::int64_t end) {
        adamw_range(factors, master, gradient, m, v, begin, end);
      });
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(adamw_cpu);

/// What the decision makes of them; on the CPU it is there already.
kernels::AdamW decided(kernels::AdamW args) {
  args.gradient_scale = args.decision->gradient_scale;
  if (args.decision->former_applied == 0) {
    args.lr = args.after_skip.lr;
    args.beta1 = args.after_skip.beta1;
    args.correction1 = args.after_skip.correction1;
    args.correction2 = args.after_skip.correction2;
  }
  return args;
}

}  // namespace

namespace kernels {

void adamw(const Stream& stream, const AdamW& args) {
  if (!stream.device().is_cpu()) return cuda::adamw(stream, args);
  if (args.decision != nullptr && args.decision->applied == 0) return;
  HWY_DYNAMIC_DISPATCH(adamw_cpu)(args.decision != nullptr ? decided(args) : args);
}

}  // namespace kernels
}  // namespace tessera
#endif
