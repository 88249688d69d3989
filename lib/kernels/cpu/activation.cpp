// SPDX-License-Identifier: Apache-2.0
// Pointwise activation functions on the CPU.
#include "tessera/kernels/activation.hpp"

#include "kernels/cpu/parallel.hpp"
#include "kernels/cuda/operations.hpp"
#include "kernels/dispatch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/activation.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
#include <hwy/contrib/math/math-inl.h>
#include "kernels/cpu/vector-inl.hpp"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {

using kernels::Activation;

HWY_INLINE FloatVector constant(double value) {
  return hn::Set(FloatTag(), static_cast<float>(value));
}

/// 1 / (1 + exp(-x)), and 1 minus that without cancellation. Below -88 they stay where they are, as
/// exp would overflow.
struct Sigmoid {
  FloatVector value, rest;
};
HWY_INLINE Sigmoid sigmoid(FloatVector x) {
  const auto exponential = hn::Exp(FloatTag(), hn::Min(hn::Neg(x), constant(88)));
  const auto value = hn::Div(constant(1), hn::Add(constant(1), exponential));
  return {value, hn::Mul(exponential, value)};
}

/// Standard normal distribution: density times sqrt(2 pi), and cumulative. With t = |x| / sqrt(2)
/// and z = 1 / (1 + t / 2), erfc(t) = z exp(-t^2) P(z). P interpolates at Chebyshev nodes for t up
/// to 9.5, where fp32 ends, with a relative error of 5.1e-8.
struct Normal {
  FloatVector density, cumulative;
};
HWY_INLINE Normal normal(FloatVector x) {
  const FloatTag tag;
  const auto t = hn::Mul(hn::Abs(x), constant(0.70710678118654752));
  const auto z = hn::Div(constant(1), hn::MulAdd(t, constant(0.5), constant(1)));
  auto p = constant(-0.0593381259118888);
  p = hn::MulAdd(p, z, constant(0.2859796717857109));
  p = hn::MulAdd(p, z, constant(-0.4902760468156721));
  p = hn::MulAdd(p, z, constant(0.2817421933404987));
  p = hn::MulAdd(p, z, constant(-0.0292310982245507));
  p = hn::MulAdd(p, z, constant(0.2038022608966253));
  p = hn::MulAdd(p, z, constant(0.2428240907336494));
  p = hn::MulAdd(p, z, constant(0.2824126132419026));
  p = hn::MulAdd(p, z, constant(0.2820844013850948));
  const auto density = hn::Exp(tag, hn::Mul(hn::Mul(x, x), constant(-0.5)));
  const auto tail = hn::Mul(constant(0.5), hn::Mul(hn::Mul(z, p), density));
  const auto negative = hn::Lt(x, hn::Zero(tag));
  return {density, hn::IfThenElse(negative, tail, hn::Sub(constant(1), tail))};
}

struct Gelu {
  static HWY_INLINE FloatVector value(FloatVector x) { return hn::Mul(x, normal(x).cumulative); }
  static HWY_INLINE FloatVector slope(FloatVector x) {
    const Normal n = normal(x);
    const auto density = hn::Mul(n.density, constant(0.39894228040143268));
    return hn::MulAdd(x, density, n.cumulative);
  }
};

/// x sigmoid(2 u), which is x / 2 (1 + tanh u), with u = sqrt(2 / pi) (x + 0.044715 x^3).
struct GeluTanh {
  static constexpr double kTwiceRoot = 1.5957691216057308;  // 2 sqrt(2 / pi)
  static constexpr double kCubic = 0.044715;

  static HWY_INLINE Sigmoid weight(FloatVector x, FloatVector square) {
    const auto inner = hn::MulAdd(square, constant(kTwiceRoot * kCubic), constant(kTwiceRoot));
    return sigmoid(hn::Mul(x, inner));
  }
  static HWY_INLINE FloatVector value(FloatVector x) {
    return hn::Mul(x, weight(x, hn::Mul(x, x)).value);
  }
  static HWY_INLINE FloatVector slope(FloatVector x) {
    const auto square = hn::Mul(x, x);
    const auto s = weight(x, square);
    const auto inner = hn::MulAdd(square, constant(3 * kTwiceRoot * kCubic), constant(kTwiceRoot));
    const auto bend = hn::Mul(hn::Mul(x, inner), s.rest);
    return hn::MulAdd(s.value, bend, s.value);
  }
};

struct Silu {
  static HWY_INLINE FloatVector value(FloatVector x) { return hn::Mul(x, sigmoid(x).value); }
  static HWY_INLINE FloatVector slope(FloatVector x) {
    const auto s = sigmoid(x);
    return hn::MulAdd(s.value, hn::Mul(x, s.rest), s.value);
  }
};

/// NaN stays NaN; the slope at 0 is 0.
struct Relu {
  static HWY_INLINE FloatVector value(FloatVector x) {
    const auto zero = hn::Zero(FloatTag());
    return hn::IfThenElse(hn::Lt(x, zero), zero, x);
  }
  static HWY_INLINE FloatVector slope(FloatVector x) {
    return hn::IfThenElseZero(hn::Gt(x, hn::Zero(FloatTag())), constant(1));
  }
};

struct Tanh {
  static HWY_INLINE FloatVector value(FloatVector x) { return hn::Tanh(FloatTag(), x); }
  static HWY_INLINE FloatVector slope(FloatVector x) {
    const auto y = value(x);
    return hn::NegMulAdd(y, y, constant(1));
  }
};

template <typename Body>
void dispatch_activation(Activation function, Body&& body) {
  switch (function) {
    case Activation::gelu:
      return body(Gelu{});
    case Activation::gelu_tanh:
      return body(GeluTanh{});
    case Activation::silu:
      return body(Silu{});
    case Activation::relu:
      return body(Relu{});
    case Activation::tanh:
      return body(Tanh{});
  }
}

void activation_forward_cpu(const kernels::ActivationForward& args) {
  kernels::dispatch_float(args.dtype, "activation", [&]<typename T>(T) {
    dispatch_activation(args.function, [&]<typename F>(F) {
      const auto* x = static_cast<const T*>(args.x);
      auto* y = static_cast<T*>(args.y);
      kernels::parallel_chunks(args.count, [=](std::int64_t begin, std::int64_t end) {
        const FloatTag tag;
        for_each_vector(begin, end, [=](std::int64_t i, auto extent) {
          store(tag, F::value(load(tag, x + i, extent)), y + i, extent);
        });
      });
    });
  });
}

void activation_backward_cpu(const kernels::ActivationBackward& args) {
  kernels::dispatch_float(args.dtype, "activation", [&]<typename T>(T) {
    dispatch_activation(args.function, [&]<typename F>(F) {
      const auto *x = static_cast<const T*>(args.x), *dy = static_cast<const T*>(args.dy);
      auto* dx = static_cast<T*>(args.dx);
      kernels::parallel_chunks(args.count, [=](std::int64_t begin, std::int64_t end) {
        const FloatTag tag;
        for_each_vector(begin, end, [=](std::int64_t i, auto extent) {
          const auto slope = F::slope(load(tag, x + i, extent));
          store(tag, hn::Mul(load(tag, dy + i, extent), slope), dx + i, extent);
        });
      });
    });
  });
}

void gated_activation_forward_cpu(const kernels::GatedActivationForward& args) {
  kernels::dispatch_float(args.dtype, "gated_activation", [&]<typename T>(T) {
    dispatch_activation(args.function, [&]<typename F>(F) {
      const auto *gate = static_cast<const T*>(args.gate), *up = static_cast<const T*>(args.up);
      auto* y = static_cast<T*>(args.y);
      kernels::parallel_chunks(args.count, [=](std::int64_t begin, std::int64_t end) {
        const FloatTag tag;
        for_each_vector(begin, end, [=](std::int64_t i, auto extent) {
          const auto open = F::value(load(tag, gate + i, extent));
          store(tag, hn::Mul(open, load(tag, up + i, extent)), y + i, extent);
        });
      });
    });
  });
}

void gated_activation_backward_cpu(const kernels::GatedActivationBackward& args) {
  kernels::dispatch_float(args.dtype, "gated_activation", [&]<typename T>(T) {
    dispatch_activation(args.function, [&]<typename F>(F) {
      const auto *gate = static_cast<const T*>(args.gate), *up = static_cast<const T*>(args.up);
      const auto* dy = static_cast<const T*>(args.dy);
      auto *dgate = static_cast<T*>(args.dgate), *dup = static_cast<T*>(args.dup);
      kernels::parallel_chunks(args.count, [=](std::int64_t begin, std::int64_t end) {
        const FloatTag tag;
        for_each_vector(begin, end, [=](std::int64_t i, auto extent) {
          const auto g = load(tag, dy + i, extent), x = load(tag, gate + i, extent);
          const auto factor = hn::Mul(g, load(tag, up + i, extent));
          store(tag, hn::Mul(factor, F::slope(x)), dgate + i, extent);
          store(tag, hn::Mul(g, F::value(x)), dup + i, extent);
        });
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

HWY_EXPORT(activation_forward_cpu);
HWY_EXPORT(activation_backward_cpu);
HWY_EXPORT(gated_activation_forward_cpu);
HWY_EXPORT(gated_activation_backward_cpu);

}  // namespace

namespace kernels {

void activation_forward(const Stream& stream, const ActivationForward& args) {
  if (!stream.device().is_cpu()) return cuda::activation_forward(stream, args);
  HWY_DYNAMIC_DISPATCH(activation_forward_cpu)(args);
}

void activation_backward(const Stream& stream, const ActivationBackward& args) {
  if (!stream.device().is_cpu()) return cuda::activation_backward(stream, args);
  HWY_DYNAMIC_DISPATCH(activation_backward_cpu)(args);
}

void gated_activation_forward(const Stream& stream, const GatedActivationForward& args) {
  if (!stream.device().is_cpu()) return cuda::gated_activation_forward(stream, args);
  HWY_DYNAMIC_DISPATCH(gated_activation_forward_cpu)(args);
}

void gated_activation_backward(const Stream& stream, const GatedActivationBackward& args) {
  if (!stream.device().is_cpu()) return cuda::gated_activation_backward(stream, args);
  HWY_DYNAMIC_DISPATCH(gated_activation_backward_cpu)(args);
}

}  // namespace kernels
}  // namespace tessera
#endif
