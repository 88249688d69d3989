// SPDX-License-Identifier: Apache-2.0
// Layer normalisation on the tape.
#include "tessera/autograd/layer_norm.hpp"

#include <memory>

#include <fmt/format.h>

#include "tessera/autograd/profiler.hpp"
#include "tessera/base/error.hpp"
#include "tessera/kernels/layer_norm.hpp"

#include "autograd/weight_gradient.hpp"

namespace tessera::autograd {
namespace {

struct LayerNorm {
  Tensor x;
  Tensor mean, rstd;  // undefined: not wanted
  Weight* weight;
  Weight* bias;
  float epsilon;
  std::int64_t rows, columns;
  Stream stream;

  Tensor forward() const {
    const ProfileScope profile("layer norm forward");
    Tensor y(x.shape(), x.dtype(), x.device());
    kernels::layer_norm_forward(stream, {.x = x.data(),
                                         .weight = attached_value(*weight),
                                         .bias = attached_value(*bias),
                                         .y = y.data(),
                                         .mean = mean.as<float>(),
                                         .rstd = rstd.as<float>(),
                                         .rows = rows,
                                         .columns = columns,
                                         .epsilon = epsilon,
                                         .dtype = x.dtype()});
    return y;
  }

  void backward(const Tensor& dy, GradientSlot& slot) const {
    const ProfileScope profile("layer norm backward");
    const GradientSlot::Target dx = slot.target(stream, x.shape(), x.dtype(), x.device());
    kernels::LayerNormBackward args{.dy = dy.data(),
                                    .x = x.data(),
                                    .weight = attached_value(*weight),
                                    .mean = mean.as<float>(),
                                    .rstd = rstd.as<float>(),
                                    .dx = dx.tensor.data(),
                                    .accumulate_dx = dx.accumulate,
                                    .dweight = nullptr,
                                    .dbias = nullptr,
                                    .gradient_type = x.dtype(),
                                    .accumulate = false,
                                    .rows = rows,
                                    .columns = columns,
                                    .dtype = x.dtype()};
    if (weight->trainable) {
      const GradientTarget target = gradient_target(*weight);
      args.dweight = target.data;
      args.gradient_type = target.dtype;
      args.accumulate = target.accumulate;
    }
    if (bias->trainable) {
      const GradientTarget target = gradient_target(*bias);
      TESSERA_CHECK(args.dweight == nullptr || (target.dtype == args.gradient_type &&
                                                target.accumulate == args.accumulate),
                    Code::internal, "gradients of a LayerNorm's weight and bias differ in kind");
      args.dbias = target.data;
      args.gradient_type = target.dtype;
      args.accumulate = target.accumulate;
    }
    kernels::layer_norm_backward(stream, args);
  }
};

}  // namespace

Value layer_norm(Tape& tape, const Value& x, Weight& weight, Weight& bias, float epsilon,
                 bool keep_output) {
  attached_value(weight);
  const std::int64_t columns = weight.value.numel();
  TESSERA_CHECK(
      columns > 0 && x.shape().rank() > 0 && x.shape()[-1] == columns, Code::invalid_argument,
      fmt::format("a LayerNorm over {} columns cannot take {}", columns, x.shape().to_string()));
  LayerNorm op{x.data(), {},           {}, &weight, &bias, epsilon, x.data().numel() / columns,
               columns,  tape.stream()};
  if (tape.recording()) {
    op.mean = Tensor(Shape{op.rows}, DType::fp32, x.data().device());
    op.rstd = Tensor(Shape{op.rows}, DType::fp32, x.data().device());
  }
  Value y = tape.result(op.forward(), x.requires_gradient() || weight.trainable || bias.trainable);
  if (!y.requires_gradient()) return y;
  // A constant input still needs somewhere to write dx: the kernel computes all at once.
  const auto slot = x.requires_gradient() ? x.slot() : std::make_shared<GradientSlot>();
  tape.record({.name = "layer_norm",
               .output = y.slot(),
               .backward_input = [op, slot](Tensor& dy) { op.backward(dy, *slot); },
               .backward_weight = {}});
  if (!keep_output) y.set_rebuild([op] { return op.forward(); });
  return y;
}

}  // namespace tessera::autograd
