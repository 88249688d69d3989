// SPDX-License-Identifier: Apache-2.0
// Affine map and its gradients as matrix products.
#include "tessera/autograd/linear.hpp"

#include <utility>
#include <vector>

#include <fmt/format.h>

#include "tessera/autograd/activation.hpp"
#include "tessera/autograd/profiler.hpp"
#include "tessera/autograd/token_shards.hpp"
#include "tessera/base/error.hpp"
#include "tessera/kernels/elementwise.hpp"
#include "tessera/kernels/gemm.hpp"

#include "autograd/record_activation.hpp"
#include "autograd/sum_over_group.hpp"
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

Tensor empty_result(const Value& x, const Sizes& sizes) {
  std::vector<std::int64_t> shape = x.shape().sizes();
  shape.back() = sizes.outputs;
  return Tensor(Shape(std::move(shape)), x.data().dtype(), x.data().device());
}

kernels::Gemm product(const Value& x, const Weight& weight, const Weight* bias,
                      const Sizes& sizes) {
  return {.a = x.data().data(),
          .b = weight.value.data(),
          .c = nullptr,
          .bias = bias ? attached_value(*bias) : nullptr,
          .m = sizes.rows,
          .n = sizes.outputs,
          .k = sizes.inputs,
          .transpose_b = sizes.transposed,
          .input_type = x.data().dtype(),
          .output_type = x.data().dtype()};
}

Tensor forward(const Stream& stream, const Value& x, const Weight& weight, const Weight* bias,
               const Sizes& sizes) {
  const ProfileScope profile("gemm forward");
  Tensor y = empty_result(x, sizes);
  kernels::Gemm gemm = product(x, weight, bias, sizes);
  gemm.c = y.data();
  kernels::gemm(stream, gemm);
  return y;
}

/// Of the rank's inputs; the bias counts once among the ranks.
Tensor partial_forward(const Stream& stream, const Value& x, const Weight& weight,
                       const Weight* bias, const Sizes& sizes, const Communicator& group) {
  return forward(stream, x, weight, group.rank() == 0 ? bias : nullptr, sizes);
}

/// f(x W + b); x W + b goes to `argument`.
Tensor forward_activation(const Stream& stream, const Value& x, const Weight& weight,
                          const Weight* bias, const Sizes& sizes, kernels::Activation function,
                          const Tensor& argument) {
  const ProfileScope profile("gemm forward");
  Tensor y = empty_result(x, sizes);
  kernels::Gemm gemm = product(x, weight, bias, sizes);
  gemm.c = y.data();
  gemm.epilogue = kernels::GemmEpilogue::activation;
  gemm.function = function;
  gemm.argument = argument.data();
  kernels::gemm(stream, gemm);
  return y;
}

kernels::Gemm input_product(const Tensor& dy, const Weight& weight, const Tensor& dx,
                            const Sizes& sizes) {
  return {.a = dy.data(),
          .b = attached_value(weight),
          .c = dx.data(),
          .m = sizes.rows,
          .n = sizes.inputs,
          .k = sizes.outputs,
          .transpose_b = !sizes.transposed,
          .input_type = dy.dtype(),
          .output_type = dy.dtype()};
}

/// dx (+)= dy W^T
void backward_input(const Stream& stream, const Tensor& dy, const Weight& weight,
                    GradientSlot& slot, const Shape& shape, const Sizes& sizes) {
  const ProfileScope profile("gemm backward input");
  const GradientSlot::Target dx = slot.target(stream, shape, dy.dtype(), dy.device());
  kernels::Gemm gemm = input_product(dy, weight, dx.tensor, sizes);
  gemm.beta = dx.accumulate ? 1.0f : 0.0f;
  kernels::gemm(stream, gemm);
}

/// Where x = f(v): dv (+)= dy W^T * f'(v), past the function's own node.
void backward_argument(const Stream& stream, const Tensor& dy, const Weight& weight,
                       const ActivationOrigin& origin, const Sizes& sizes) {
  const ProfileScope profile("gemm backward input");
  Tensor dv(origin.argument.shape(), dy.dtype(), dy.device());
  kernels::Gemm gemm = input_product(dy, weight, dv, sizes);
  gemm.epilogue = kernels::GemmEpilogue::activation_gradient;
  gemm.function = origin.function;
  gemm.argument = origin.argument.data();
  kernels::gemm(stream, gemm);
  origin.slot->add(stream, std::move(dv));
}

/// dW (+)= x^T dy, or dy^T x for the transposed layout
kernels::Gemm weight_product(const Tensor& dy, const Tensor& x, const GradientTarget& target,
                             const Sizes& sizes) {
  const Tensor& left = sizes.transposed ? dy : x;
  const Tensor& right = sizes.transposed ? x : dy;
  return {.a = left.data(),
          .b = right.data(),
          .c = target.data,
          .m = sizes.transposed ? sizes.outputs : sizes.inputs,
          .n = sizes.transposed ? sizes.inputs : sizes.outputs,
          .k = sizes.rows,
          .transpose_a = true,
          .beta = target.accumulate ? 1.0f : 0.0f,
          .input_type = dy.dtype(),
          .output_type = target.dtype};
}

/// db (+)= sum of dy over its rows
void backward_bias(const Stream& stream, const Tensor& dy, const GradientTarget& target,
                   const Sizes& sizes) {
  const ProfileScope profile("bias gradient");
  kernels::column_sum(stream, {.x = dy.data(),
                               .y = target.data,
                               .output_type = target.dtype,
                               .accumulate = target.accumulate,
                               .rows = sizes.rows,
                               .columns = sizes.outputs,
                               .dtype = dy.dtype()});
}

/// Ranks that hold parts of the weight of different sizes must find the same bits for a bias that
/// each of them has whole.
enum class BiasGradient : std::uint8_t { with_weight, apart };

/// The bias's gradient in one step with the weight's, which reads dy too, where both are wanted and
/// written alike.
void backward_weight(const Stream& stream, const Tensor& dy, const Tensor& x, Weight& weight,
                     Weight* bias, const Sizes& sizes, BiasGradient bias_gradient) {
  const GradientTarget dw = gradient_target(weight);
  kernels::Gemm gemm = weight_product(dy, x, dw, sizes);
  if (bias != nullptr) {
    const GradientTarget db = gradient_target(*bias);
    if (bias_gradient == BiasGradient::with_weight && db.dtype == dw.dtype &&
        db.accumulate == dw.accumulate)
      (sizes.transposed ? gemm.a_sums : gemm.b_sums) = db.data;
    else
      backward_bias(stream, dy, db, sizes);
  }
  const ProfileScope profile("gemm backward weight");
  kernels::gemm(stream, gemm);
}

/// The tape's side of y = x W + b, which has been computed.
Value record_linear(Tape& tape, const Value& x, Weight& weight, Weight* bias, const Sizes& sizes,
                    Tensor data, BiasGradient bias_gradient = BiasGradient::with_weight) {
  Weight* const trained_bias = bias != nullptr && bias->trainable ? bias : nullptr;
  Value y = tape.result(std::move(data),
                        x.requires_gradient() || weight.trainable || trained_bias != nullptr);
  if (!y.requires_gradient()) return y;
  Node node{.name = "linear", .output = y.slot(), .backward_input = {}, .backward_weight = {}};
  if (x.requires_gradient())
    node.backward_input = [&weight, sizes, slot = x.slot(), origin = x.activation_origin(),
                           shape = x.shape(), stream = tape.stream()](Tensor& dy) {
      if (origin)
        backward_argument(stream, dy, weight, *origin, sizes);
      else
        backward_input(stream, dy, weight, *slot, shape, sizes);
    };
  if (weight.trainable)
    node.backward_weight = [&weight, trained_bias, sizes, bias_gradient, saved = x.save(),
                            stream = tape.stream()](const Tensor& dy) {
      backward_weight(stream, dy, saved.get(), weight, trained_bias, sizes, bias_gradient);
    };
  else if (trained_bias != nullptr)
    node.backward_weight = [trained_bias, sizes, stream = tape.stream()](const Tensor& dy) {
      backward_bias(stream, dy, gradient_target(*trained_bias), sizes);
    };
  tape.record(std::move(node));
  return y;
}

}  // namespace

Value linear(Tape& tape, const Value& x, Weight& weight, Weight* bias, WeightLayout layout) {
  const Sizes sizes = sizes_of(x, weight, bias, layout);
  return record_linear(tape, x, weight, bias, sizes,
                       forward(tape.stream(), x, weight, bias, sizes));
}

Value row_linear(Tape& tape, const Value& x, Weight& weight, Weight* bias, Communicator& group,
                 WeightLayout layout) {
  const Sizes sizes = sizes_of(x, weight, bias, layout);
  Tensor y = partial_forward(tape.stream(), x, weight, bias, sizes, group);
  sum_over_group(tape.stream(), y, group);
  return record_linear(tape, x, weight, bias, sizes, std::move(y), BiasGradient::apart);
}

Value row_linear_to_shards(Tape& tape, const Value& x, Weight& weight, Weight* bias,
                           Communicator& group, WeightLayout layout) {
  const Sizes sizes = sizes_of(x, weight, bias, layout);
  Tensor y = partial_forward(tape.stream(), x, weight, bias, sizes, group);
  return scatter_tokens(
      tape, record_linear(tape, x, weight, bias, sizes, std::move(y), BiasGradient::apart), group);
}

Value linear_activation(Tape& tape, const Value& x, Weight& weight, Weight* bias,
                        kernels::Activation function, bool keep_output, WeightLayout layout) {
  if (!keep_output)
    return activation(tape, linear(tape, x, weight, bias, layout), function, keep_output);
  const Sizes sizes = sizes_of(x, weight, bias, layout);
  const Tensor argument = empty_result(x, sizes);
  Tensor y = forward_activation(tape.stream(), x, weight, bias, sizes, function, argument);
  const Value inner = record_linear(tape, x, weight, bias, sizes, argument);
  return record_activation(tape, inner, std::move(y), function);
}

}  // namespace tessera::autograd
