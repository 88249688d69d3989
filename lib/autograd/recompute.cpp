// SPDX-License-Identifier: Apache-2.0
// Regions of the tape that are run again instead of kept.
#include <utility>

#include "tessera/autograd/tape.hpp"

namespace tessera::autograd {

Value recompute(Tape& tape, const Value& input,
                const std::function<Value(Tape&, const Value&)>& body) {
  Tape forward(Recording::off, nullptr, tape.stream());
  Value inside = body(forward, Value(input.data()));
  if (!tape.recording()) return inside;
  Value result = tape.result(inside.take_data(), true);
  tape.record({.name = "recompute",
               .output = result.slot(),
               .backward_input =
                   [&tape, body, data = input.data(), slot = input.slot()](Tensor& gradient) {
                     Tape again(Recording::on, nullptr, tape.stream());
                     if (tape.splits_backward()) again.split_backward();
                     const Value start = slot ? Value::leaf(data) : Value(data);
                     Value output = body(again, start);
                     output.take_data();
                     tape.backward_input(again, output, std::move(gradient));
                     if (slot && !start.slot()->empty())
                       slot->add(tape.stream(), start.slot()->take());
                   },
               .backward_weight = {}});
  return result;
}

}  // namespace tessera::autograd
