// SPDX-License-Identifier: Apache-2.0
// Pointwise activation functions on a GPU: the formulas of the CPU, without its tails.
#include "kernels/cuda/operations.hpp"
#include "kernels/cuda/pack.cuh"

namespace tessera::kernels::cuda {
namespace {

/// 1 / (1 + exp(-x)), and 1 minus that without cancellation. Below -87 they stay where they are, as
/// the fast division ends at 2^126.
struct Sigmoid {
  float value, rest;
};
__device__ __forceinline__ Sigmoid sigmoid(float x) {
  const float exponential = expf(fminf(-x, 87.0f));
  const float value = __fdividef(1.0f, 1.0f + exponential);
  return {value, exponential * value};
}

/// Standard normal distribution: density times sqrt(2 pi), and cumulative, as on the CPU.
struct Normal {
  float density, cumulative;
};
__device__ __forceinline__ Normal normal(float x) {
  const float t = fabsf(x) * 0.70710678118654752f;
  const float z = __fdividef(1.0f, fmaf(t, 0.5f, 1.0f));
  float p = -0.0593381259118888f;
  p = fmaf(p, z, 0.2859796717857109f);
  p = fmaf(p, z, -0.4902760468156721f);
  p = fmaf(p, z, 0.2817421933404987f);
  p = fmaf(p, z, -0.0292310982245507f);
  p = fmaf(p, z, 0.2038022608966253f);
  p = fmaf(p, z, 0.2428240907336494f);
  p = fmaf(p, z, 0.2824126132419026f);
  p = fmaf(p, z, 0.2820844013850948f);
  const float density = expf(x * x * -0.5f);
  const float tail = 0.5f * (z * p * density);
  return {density, x < 0 ? tail : 1.0f - tail};
}

struct Gelu {
  static __device__ __forceinline__ float value(float x) { return x * normal(x).cumulative; }
  static __device__ __forceinline__ float slope(float x) {
    const Normal n = normal(x);
    return fmaf(x, n.density * 0.39894228040143268f, n.cumulative);
  }
};

/// x sigmoid(2 u), which is x / 2 (1 + tanh u), with u = sqrt(2 / pi) (x + 0.044715 x^3).
struct GeluTanh {
  static constexpr float kTwiceRoot = 1.5957691216057308f;  // 2 sqrt(2 / pi)
  static constexpr float kCubic = 0.071354816272600248f;    // 0.044715 of it

  static __device__ __forceinline__ float value(float x) {
    return x * sigmoid(x * fmaf(x * x, kCubic, kTwiceRoot)).value;
  }
  static __device__ __forceinline__ float slope(float x) {
    const float square = x * x;
    const Sigmoid s = sigmoid(x * fmaf(square, kCubic, kTwiceRoot));
    const float bend = x * fmaf(square, 3 * kCubic, kTwiceRoot) * s.rest;
    return fmaf(s.value, bend, s.value);
  }
};

struct Silu {
  static __device__ __forceinline__ float value(float x) { return x * sigmoid(x).value; }
  static __device__ __forceinline__ float slope(float x) {
    const Sigmoid s = sigmoid(x);
    return fmaf(s.value, x * s.rest, s.value);
  }
};

/// NaN stays NaN; the slope at 0 is 0.
struct Relu {
  static __device__ __forceinline__ float value(float x) { return x < 0 ? 0.0f : x; }
  static __device__ __forceinline__ float slope(float x) { return x > 0 ? 1.0f : 0.0f; }
};

struct Tanh {
  static __device__ __forceinline__ float value(float x) { return tanhf(x); }
  static __device__ __forceinline__ float slope(float x) {
    const float y = tanhf(x);
    return fmaf(-y, y, 1.0f);
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

template <typename T, typename F>
struct Forward {
  static constexpr int kWidth = kPackWidth<T>;
  const T* x;
  T* y;

  template <int N>
  __device__ void operator()(std::int64_t i, Width<N>) const {
    store_map(
        y + i, [](float a) { return F::value(a); }, load<N>(x + i));
  }
};

template <typename T, typename F>
struct Backward {
  static constexpr int kWidth = kPackWidth<T>;
  const T* dy;
  const T* x;
  T* dx;

  template <int N>
  __device__ void operator()(std::int64_t i, Width<N>) const {
    store_map(
        dx + i, [](float g, float a) { return g * F::slope(a); }, load<N>(dy + i), load<N>(x + i));
  }
};

template <typename T, typename F>
struct GatedForward {
  static constexpr int kWidth = kPackWidth<T>;
  const T* gate;
  const T* up;
  T* y;

  template <int N>
  __device__ void operator()(std::int64_t i, Width<N>) const {
    store_map(
        y + i, [](float a, float b) { return F::value(a) * b; }, load<N>(gate + i),
        load<N>(up + i));
  }
};

template <typename T, typename F>
struct GatedBackward {
  static constexpr int kWidth = kPackWidth<T>;
  const T* dy;
  const T* gate;
  const T* up;
  T* dgate;
  T* dup;

  template <int N>
  __device__ void operator()(std::int64_t i, Width<N>) const {
    const auto g = load<N>(dy + i), a = load<N>(gate + i), b = load<N>(up + i);
    store_map(
        dgate + i,
        [](float slope, float argument, float factor) {
          return slope * factor * F::slope(argument);
        },
        g, a, b);
    store_map(
        dup + i, [](float slope, float argument) { return slope * F::value(argument); }, g, a);
  }
};

}  // namespace

void activation_forward(const Stream& stream, const ActivationForward& args) {
  dispatch_type(args.dtype, "activation", [&]<typename T>(T) {
    dispatch_activation(args.function, [&]<typename F>(F) {
      const Forward<T, F> op{static_cast<const T*>(args.x), static_cast<T*>(args.y)};
      launch_elementwise(stream, op, args.count, all_aligned<op.kWidth>(op.x, op.y));
    });
  });
}

void activation_backward(const Stream& stream, const ActivationBackward& args) {
  dispatch_type(args.dtype, "activation", [&]<typename T>(T) {
    dispatch_activation(args.function, [&]<typename F>(F) {
      const Backward<T, F> op{static_cast<const T*>(args.dy), static_cast<const T*>(args.x),
                              static_cast<T*>(args.dx)};
      launch_elementwise(stream, op, args.count, all_aligned<op.kWidth>(op.dy, op.x, op.dx));
    });
  });
}

void gated_activation_forward(const Stream& stream, const GatedActivationForward& args) {
  dispatch_type(args.dtype, "gated_activation", [&]<typename T>(T) {
    dispatch_activation(args.function, [&]<typename F>(F) {
      const GatedForward<T, F> op{static_cast<const T*>(args.gate), static_cast<const T*>(args.up),
                                  static_cast<T*>(args.y)};
      launch_elementwise(stream, op, args.count, all_aligned<op.kWidth>(op.gate, op.up, op.y));
    });
  });
}

void gated_activation_backward(const Stream& stream, const GatedActivationBackward& args) {
  dispatch_type(args.dtype, "gated_activation", [&]<typename T>(T) {
    dispatch_activation(args.function, [&]<typename F>(F) {
      const GatedBackward<T, F> op{static_cast<const T*>(args.dy), static_cast<const T*>(args.gate),
                                   static_cast<const T*>(args.up), static_cast<T*>(args.dgate),
                                   static_cast<T*>(args.dup)};
      launch_elementwise(stream, op, args.count,
                         all_aligned<op.kWidth>(op.dy, op.gate, op.up, op.dgate, op.dup));
    });
  });
}

}  // namespace tessera::kernels::cuda
