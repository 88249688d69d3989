// SPDX-License-Identifier: Apache-2.0
#include "tessera/autograd/rotary.hpp"

#include <utility>

#include <fmt/format.h>

#include "tessera/autograd/profiler.hpp"
#include "tessera/base/error.hpp"
#include "tessera/kernels/rotary.hpp"

namespace tessera::autograd {
namespace {

Tensor turned(const Stream& stream, Tensor x, const Rotary& options, bool inverse) {
  const ProfileScope profile(inverse ? "rotary backward" : "rotary forward");
  const Tensor y = x.unique() ? std::move(x) : x.clone(stream);
  kernels::rotary(stream, {.x = y.data(),
                           .positions = options.positions.as<std::int32_t>(),
                           .inverse_frequency = options.inverse_frequencies.as<float>(),
                           .rows = options.positions.numel(),
                           .heads = options.heads,
                           .head_dim = options.head_dim,
                           .rotary_dim = 2 * options.inverse_frequencies.numel(),
                           .row_stride = y.shape()[-1],
                           .inverse = inverse,
                           .dtype = y.dtype()});
  return y;
}

}  // namespace

Value rotary(Tape& tape, Value x, const Rotary& options) {
  const Shape& shape = x.shape();
  TESSERA_CHECK(shape.rank() > 0 && shape[-1] >= options.heads * options.head_dim &&
                    options.positions.numel() * shape[-1] == shape.numel(),
                Code::invalid_argument,
                fmt::format("{} heads of {} at {} positions are not in {}", options.heads,
                            options.head_dim, options.positions.numel(), shape.to_string()));
  const auto slot = x.slot();
  Tensor data = x.take_data();
  x = Value();
  Value y = tape.result(turned(tape.stream(), std::move(data), options, false), slot != nullptr);
  if (!y.requires_gradient()) return y;
  tape.record({.name = "rotary",
               .output = y.slot(),
               .backward_input =
                   [options, slot, stream = tape.stream()](Tensor& dy) {
                     slot->add(stream, turned(stream, std::move(dy), options, true));
                   },
               .backward_weight = {}});
  return y;
}

}  // namespace tessera::autograd
