// SPDX-License-Identifier: Apache-2.0
// Stochastic gradient descent on the CPU.
#include "tessera/kernels/sgd.hpp"

#include "kernels/cpu/parallel.hpp"
#include "kernels/cuda/operations.hpp"
#include "kernels/dispatch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/sgd.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
#include "kernels/cpu/split_master-inl.hpp"
#include "kernels/cpu/vector-inl.hpp"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {

template <typename Master, typename G>
void sgd_range(const kernels::Sgd& args, Master master, const G* gradient, std::int64_t begin,
               std::int64_t end) {
  const FloatTag tag;
  const auto scale = hn::Set(tag, args.gradient_scale);
  const auto decay = hn::Set(tag, static_cast<float>(args.weight_decay));
  const auto momentum = hn::Set(tag, static_cast<float>(args.momentum));
  const auto rest = hn::Set(tag, static_cast<float>(1 - args.dampening));
  const auto step = hn::Set(tag, static_cast<float>(-args.lr));
  float* buffer = args.momentum_buffer;
  const bool first = args.first_step, nesterov = args.nesterov;
  for_each_vector(begin, end, [=](std::int64_t i, auto extent) {
    const auto w = master.get(tag, i, extent);
    const auto g = hn::MulAdd(decay, w, hn::Mul(load(tag, gradient + i, extent), scale));
    auto direction = g;
    if (buffer != nullptr) {
      const auto before = load(tag, buffer + i, extent);
      const auto after = first ? g : hn::MulAdd(momentum, before, hn::Mul(rest, g));
      store(tag, after, buffer + i, extent);
      direction = nesterov ? hn::MulAdd(momentum, after, g) : after;
    }
    master.set(tag, hn::MulAdd(step, direction, w), i, extent);
  });
}

void sgd_cpu(const kernels::Sgd& args) {
  dispatch_master(args, [&](auto master) {
    kernels::dispatch_float(args.gradient_type, "sgd", [&]<typename G>(G) {
      const auto* gradient = static_cast<const G*>(args.gradient);
      kernels::parallel_chunks(args.count, [&](std::int64_t begin, std::int64_t end) {
        sgd_range(args, master, gradient, begin, end);
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

HWY_EXPORT(sgd_cpu);

/// What the decision makes of them; on the CPU it is there already.
kernels::Sgd decided(kernels::Sgd args) {
  args.gradient_scale = args.decision->gradient_scale;
  if (args.decision->former_applied == 0) {
    args.lr = args.after_skip.lr;
    args.first_step = args.after_skip.first_step;
  }
  return args;
}

}  // namespace

namespace kernels {

void sgd(const Stream& stream, const Sgd& args) {
  TESSERA_CHECK(args.momentum == 0 || args.momentum_buffer != nullptr, Code::invalid_argument,
                "sgd: momentum needs a momentum buffer");
  if (!stream.device().is_cpu()) return cuda::sgd(stream, args);
  if (args.decision != nullptr && args.decision->applied == 0) return;
  HWY_DYNAMIC_DISPATCH(sgd_cpu)(args.decision != nullptr ? decided(args) : args);
}

}  // namespace kernels
}  // namespace tessera
#endif
