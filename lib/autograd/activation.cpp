// SPDX-License-Identifier: Apache-2.0
// Pointwise activation functions on the tape.
#include "tessera/autograd/activation.hpp"

#include <utility>

#include "tessera/autograd/profiler.hpp"

#include "autograd/record_activation.hpp"

namespace tessera::autograd {
namespace {

Tensor forward(const Stream& stream, const Tensor& x, kernels::Activation function) {
  const ProfileScope profile("activation forward");
  Tensor y(x.shape(), x.dtype(), x.device());
  kernels::activation_forward(
      stream,
      {.x = x.data(), .y = y.data(), .count = x.numel(), .function = function, .dtype = x.dtype()});
  return y;
}

/// In place of dy unless somebody else holds it.
Tensor backward(const Stream& stream, Tensor dy, const Tensor& x, kernels::Activation function) {
  const ProfileScope profile("activation backward");
  const void* source = dy.data();
  Tensor dx = dy.unique() ? std::move(dy) : Tensor(x.shape(), x.dtype(), x.device());
  kernels::activation_backward(stream, {.dy = source,
                                        .x = x.data(),
                                        .dx = dx.data(),
                                        .count = x.numel(),
                                        .function = function,
                                        .dtype = x.dtype()});
  return dx;
}

}  // namespace

Value record_activation(Tape& tape, const Value& x, Tensor data, kernels::Activation function) {
  Value y = tape.result(std::move(data), x.requires_gradient());
  if (!y.requires_gradient()) return y;
  y.set_activation_origin({.function = function, .argument = x.data(), .slot = x.slot()});
  tape.record(
      {.name = "activation",
       .output = y.slot(),
       .backward_input =
           [function, argument = x.data(), slot = x.slot(), stream = tape.stream()](Tensor& dy) {
             slot->add(stream, backward(stream, std::move(dy), argument, function));
           },
       .backward_weight = {}});
  return y;
}

Value activation(Tape& tape, const Value& x, kernels::Activation function, bool keep_output) {
  Value y = record_activation(tape, x, forward(tape.stream(), x.data(), function), function);
  if (!keep_output && y.requires_gradient())
    y.set_rebuild([function, data = x.data(), stream = tape.stream()] {
      return forward(stream, data, function);
    });
  return y;
}

}  // namespace tessera::autograd
