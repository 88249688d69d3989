// SPDX-License-Identifier: Apache-2.0
// Affine map and its gradients as matrix products.
#include "tessera/autograd/linear.hpp"

#include <vector>

#include <fmt/format.h>

#include "tessera/autograd/profiler.hpp"
#include "tessera/base/error.hpp"
#include "tessera/kernels/elementwise.hpp"
#include "tessera/kernels/gemm.hpp"

#include "autograd/weight_gradient.hpp"

namespace tessera::autograd {
namespace {

struct Sizes {
  std::int64_t rows, inputs, outputs;
  bool transposed;  // the weight is [outputs, inputs]
};

Sizes sizes_of(const Value& x, const Weight& weight, const Weight* bias, WeightLayout layout) {
  attached_value(weight);
  const bool transposed = layout == WeightLayout::out_in;
  const std::int64_t inputs = weight.value.size(transposed ? 1 : 0);
  const std::int64_t outputs = weight.value.size(transposed ? 0 : 1);
  TESSERA_CHECK(x.shape().rank() > 0 && x.shape()[-1] == inputs &&
                    (bias == nullptr || bias->value.numel() == outputs),
                Code::invalid_argument,
                fmt::format("a linear map with weight {} cannot take {}",
                            weight.value.shape().to_string(), x.shape().to_string()));
  return {inputs == 0 ? 0 : x.data().numel() / inputs, inputs, outputs, transposed};
}

Tensor forward(const Stream& stream, const Value& x, const Weight& weight, const Weight* bias,
               const Sizes& sizes) {
  const ProfileScope profile("gemm forward");
  std::vector<std::int64_t> shape = x.shape().sizes();
  shape.back() = sizes.outputs;
  Tensor y(Shape(std::move(shape)), x.data().dtype(), x.data().device());
  kernels::gemm(stream, {.a = x.data().data(),
                         .b = weight.value.data(),
                         .c = y.data(),
                         .bias = bias ? attached_value(*bias) : nullptr,
                         .m = sizes.rows,
                         .n = sizes.outputs,
                         .k = sizes.inputs,
                         .transpose_b = sizes.transposed,
                         .input_type = y.dtype(),
                         .output_type = y.dtype()});
  return y;
}

/// dx (+)= dy W^T
void backward_input(const Stream& stream, const Tensor& dy, const Weight& weight,
                    GradientSlot& slot, const Shape& shape, const Sizes& sizes) {
  const ProfileScope profile("gemm backward input");
  const GradientSlot::Target dx = slot.target(stream, shape, dy.dtype(), dy.device());
  kernels::gemm(stream, {.a = dy.data(),
                         .b = attached_value(weight),
                         .c = dx.tensor.data(),
                         .m = sizes.rows,
                         .n = sizes.inputs,
                         .k = sizes.outputs,
                         .transpose_b = !sizes.transposed,
                         .beta = dx.accumulate ? 1.0f : 0.0f,
                         .input_type = dy.dtype(),
                         .output_type = dy.dtype()});
}

/// dW (+)= x^T dy, or dy^T x for the transposed layout
void backward_weight(const Stream& stream, const Tensor& dy, const Tensor& x, Weight& weight,
                     const Sizes& sizes) {
  const ProfileScope profile("gemm backward weight");
  const GradientTarget target = gradient_target(weight);
  const Tensor& left = sizes.transposed ? dy : x;
  const Tensor& right = sizes.transposed ? x : dy;
  kernels::gemm(stream, {.a = left.data(),
                         .b = right.data(),
                         .c = target.data,
                         .m = sizes.transposed ? sizes.outputs : sizes.inputs,
                         .n = sizes.transposed ? sizes.inputs : sizes.outputs,
                         .k = sizes.rows,
                         .transpose_a = true,
                         .beta = target.accumulate ? 1.0f : 0.0f,
                         .input_type = dy.dtype(),
                         .output_type = target.dtype});
}

void backward_bias(const Stream& stream, const Tensor& dy, Weight& bias, const Sizes& sizes) {
  const ProfileScope profile("bias gradient");
  const GradientTarget target = gradient_target(bias);
  kernels::column_sum(stream, {.x = dy.data(),
                               .y = target.data,
                               .output_type = target.dtype,
                               .accumulate = target.accumulate,
                               .rows = sizes.rows,
                               .columns = sizes.outputs,
                               .dtype = dy.dtype()});
}

}  // namespace

Value linear(Tape& tape, const Value& x, Weight& weight, Weight* bias, WeightLayout layout) {
  const Sizes sizes = sizes_of(x, weight, bias, layout);
  const bool bias_trains = bias != nullptr && bias->trainable;
  Value y = tape.result(forward(tape.stream(), x, weight, bias, sizes),
                        x.requires_gradient() || weight.trainable || bias_trains);
  if (!y.requires_gradient()) return y;
  Node node{.name = "linear", .output = y.slot(), .backward_input = {}, .backward_weight = {}};
  if (x.requires_gradient())
    node.backward_input = [&weight, sizes, slot = x.slot(), shape = x.shape(),
                           stream = tape.stream()](Tensor& dy) {
      backward_input(stream, dy, weight, *slot, shape, sizes);
    };
  const SavedTensor saved = weight.trainable ? x.save() : SavedTensor();
  if (weight.trainable || bias_trains)
    node.backward_weight = [&weight, bias, bias_trains, sizes, saved,
                            stream = tape.stream()](const Tensor& dy) {
      if (weight.trainable) backward_weight(stream, dy, saved.get(), weight, sizes);
      if (bias_trains) backward_bias(stream, dy, *bias, sizes);
    };
  tape.record(std::move(node));
  return y;
}

}  // namespace tessera::autograd
