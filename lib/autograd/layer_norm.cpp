// SPDX-License-Identifier: Apache-2.0
// Layer normalisation on the tape.
#include "tessera/autograd/layer_norm.hpp"

#include <memory>
#include <utility>

#include <fmt/format.h>

#include "tessera/autograd/profiler.hpp"
#include "tessera/base/error.hpp"
#include "tessera/kernels/layer_norm.hpp"

#include "autograd/residual_sum.hpp"
#include "autograd/sum_over_group.hpp"
#include "autograd/weight_gradient.hpp"

namespace tessera::autograd {
namespace {

/// Gradients that were computed apart, if any: of the weight, and of the bias.
void write_rows(const Stream& stream, const Tensor& gradients, Weight& weight, Weight& bias) {
  if (!gradients) return;
  if (weight.trainable) write_gradient(stream, gradients.rows(0, 1), weight);
  if (bias.trainable) write_gradient(stream, gradients.rows(1, 2), bias);
}

struct LayerNorm {
  Tensor x;
  Tensor mean, rstd;  // undefined: not wanted
  Weight* weight;
  Weight* bias;
  float epsilon;
  Communicator* group;
  std::int64_t rows, columns;
  Stream stream;

  Tensor forward() const { return forward(x.data(), nullptr); }
  /// With a residual, x becomes residual + branch first.
  Tensor forward(const void* branch, const void* residual) const {
    const ProfileScope profile("layer norm forward");
    Tensor y(x.shape(), x.dtype(), x.device());
    kernels::layer_norm_forward(stream, {.x = branch,
                                         .weight = attached_value(*weight),
                                         .bias = attached_value(*bias),
                                         .y = y.data(),
                                         .mean = mean.as<float>(),
                                         .rstd = rstd.as<float>(),
                                         .rows = rows,
                                         .columns = columns,
                                         .epsilon = epsilon,
                                         .dtype = x.dtype(),
                                         .residual = residual,
                                         .sum = residual != nullptr ? x.data() : nullptr});
    return y;
  }

  /// Where the weights' gradients have no place yet (Phase::inputs) they go into `waiting`, a row
  /// each.
  void backward(const Tensor& dy, GradientSlot& slot, Tensor& waiting) const {
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
    const bool nowhere =
        (weight->trainable && !weight->gradient) || (bias->trainable && !bias->gradient);
    const bool partial = group != nullptr && (weight->trainable || bias->trainable);
    if (nowhere || partial)
      waiting = put_aside(args);
    else
      write_gradients(args);
    kernels::layer_norm_backward(stream, args);
    if (partial) sum_over_group(stream, waiting, *group);
    if (!nowhere) write_rows(stream, std::exchange(waiting, {}), *weight, *bias);
  }

 private:
  Tensor put_aside(kernels::LayerNormBackward& args) const {
    const Tensor gradients(Shape{2, columns}, DType::fp32, x.device());
    if (weight->trainable) args.dweight = gradients.as<float>();
    if (bias->trainable) args.dbias = gradients.as<float>() + columns;
    args.gradient_type = DType::fp32;
    return gradients;
  }

  void write_gradients(kernels::LayerNormBackward& args) const {
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
  }
};

LayerNorm make_layer_norm(const Tape& tape, Tensor x, Weight& weight, Weight& bias, float epsilon,
                          Communicator* group) {
  attached_value(weight);
  const std::int64_t columns = weight.value.numel();
  TESSERA_CHECK(
      columns > 0 && x.shape().rank() > 0 && x.shape()[-1] == columns, Code::invalid_argument,
      fmt::format("a LayerNorm over {} columns cannot take {}", columns, x.shape().to_string()));
  const std::int64_t rows = x.numel() / columns;
  LayerNorm op{std::move(x), {}, {}, &weight, &bias, epsilon, group, rows, columns, tape.stream()};
  if (tape.recording()) {
    op.mean = Tensor(Shape{rows}, DType::fp32, op.x.device());
    op.rstd = Tensor(Shape{rows}, DType::fp32, op.x.device());
  }
  return op;
}

/// The tape's side of y = op(x), which has been computed.
Value record_layer_norm(Tape& tape, const LayerNorm& op, const Value& x, Tensor data,
                        bool keep_output) {
  Value y = tape.result(std::move(data),
                        x.requires_gradient() || op.weight->trainable || op.bias->trainable);
  if (!y.requires_gradient()) return y;
  // A constant input still needs somewhere to write dx: the kernel computes all at once.
  const auto slot = x.requires_gradient() ? x.slot() : std::make_shared<GradientSlot>();
  const auto waiting = std::make_shared<Tensor>();
  tape.record(
      {.name = "layer_norm",
       .output = y.slot(),
       .backward_input =
           [op, slot, waiting](Tensor& dy) { op.backward(std::exchange(dy, {}), *slot, *waiting); },
       .backward_weight = [stream = op.stream, waiting, weight = op.weight, bias = op.bias](
                              const Tensor&) { write_rows(stream, *waiting, *weight, *bias); },
       .waits = false});
  if (!keep_output) y.set_rebuild([op] { return op.forward(); });
  return y;
}

}  // namespace

Value layer_norm(Tape& tape, const Value& x, Weight& weight, Weight& bias, float epsilon,
                 bool keep_output, Communicator* group) {
  const LayerNorm op = make_layer_norm(tape, x.data(), weight, bias, epsilon, group);
  return record_layer_norm(tape, op, x, op.forward(), keep_output);
}

NormedSum dropout_add_layer_norm(Tape& tape, const Value& residual, Value x,
                                 const DropoutSite& site, Weight& weight, Weight& bias,
                                 float epsilon, bool keep_output, Communicator* group) {
  if (site.probability > 0) {
    const Value sum = dropout_add(tape, residual, std::move(x), site);
    return {sum, layer_norm(tape, sum, weight, bias, epsilon, keep_output, group)};
  }
  check_branch(residual, x);
  const auto slot = x.slot();
  Tensor branch = x.take_data();
  x = Value();
  const void* elements = branch.data();
  const LayerNorm op =
      make_layer_norm(tape, in_place_or_new(std::move(branch)), weight, bias, epsilon, group);
  Tensor y = op.forward(elements, residual.data().data());
  const Value sum = record_dropout_add(tape, residual, slot, op.x, site);
  return {sum, record_layer_norm(tape, op, sum, std::move(y), keep_output)};
}

}  // namespace tessera::autograd
