// SPDX-License-Identifier: Apache-2.0
#include "tessera/autograd/gated_activation.hpp"

#include <utility>
#include <vector>

#include <fmt/format.h>

#include "tessera/autograd/profiler.hpp"
#include "tessera/base/error.hpp"

namespace tessera::autograd {
namespace {

Shape half_of(const Shape& both) {
  return Shape(std::vector<std::int64_t>(both.sizes().begin() + 1, both.sizes().end()));
}

std::byte* second_half(const Tensor& both) {
  return both.as<std::byte>() + both.bytes() / 2;
}

Tensor forward(const Stream& stream, const Tensor& gate_up, kernels::Activation function) {
  const ProfileScope profile("activation forward");
  Tensor y(half_of(gate_up.shape()), gate_up.dtype(), gate_up.device());
  kernels::gated_activation_forward(stream, {.gate = gate_up.data(),
                                             .up = second_half(gate_up),
                                             .y = y.data(),
                                             .count = y.numel(),
                                             .function = function,
                                             .dtype = y.dtype()});
  return y;
}

/// In place of gate_up unless somebody else holds it.
Tensor backward(const Stream& stream, const Tensor& dy, Tensor gate_up,
                kernels::Activation function) {
  const ProfileScope profile("activation backward");
  Tensor gradient =
      gate_up.unique() ? gate_up : Tensor(gate_up.shape(), gate_up.dtype(), gate_up.device());
  kernels::gated_activation_backward(stream, {.dy = dy.data(),
                                              .gate = gate_up.data(),
                                              .up = second_half(gate_up),
                                              .dgate = gradient.data(),
                                              .dup = second_half(gradient),
                                              .count = dy.numel(),
                                              .function = function,
                                              .dtype = dy.dtype()});
  return gradient;
}

}  // namespace

Value gated_activation(Tape& tape, Value gate_up, kernels::Activation function, bool keep_output) {
  const Shape& shape = gate_up.shape();
  TESSERA_CHECK(shape.rank() > 1 && shape[0] == 2, Code::invalid_argument,
                fmt::format("a gate and what it gates are two halves, not {}", shape.to_string()));
  const auto slot = gate_up.slot();
  Tensor both = gate_up.take_data();
  Value y = tape.result(forward(tape.stream(), both, function), slot != nullptr);
  if (!y.requires_gradient()) return y;
  if (!keep_output)
    y.set_rebuild(
        [function, both, stream = tape.stream()] { return forward(stream, both, function); });
  tape.record(
      {.name = "gated_activation",
       .output = y.slot(),
       .backward_input =
           [function, both = std::move(both), slot, stream = tape.stream()](Tensor& dy) mutable {
             slot->add(stream, backward(stream, dy, std::move(both), function));
           },
       .backward_weight = {}});
  return y;
}

}  // namespace tessera::autograd
