// SPDX-License-Identifier: Apache-2.0
// Pointwise activation functions on the tape.
#include "tessera/autograd/activation.hpp"

#include <utility>

#include "tessera/autograd/profiler.hpp"

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

Value activation(Tape& tape, const Value& x, kernels::Activation function, bool keep_output) {
  Value y = tape.result(forward(tape.stream(), x.data(), function), x.requires_gradient());
  if (!y.requires_gradient()) return y;
  tape.record(
      {.name = "activation",
       .output = y.slot(),
       .backward_input =
           [function, data = x.data(), slot = x.slot(), stream = tape.stream()](Tensor& dy) {
             slot->add(stream, backward(stream, std::move(dy), data, function));
           },
       .backward_weight = {}});
  if (!keep_output)
    y.set_rebuild([function, data = x.data(), stream = tape.stream()] {
      return forward(stream, data, function);
    });
  return y;
}

}  // namespace tessera::autograd
