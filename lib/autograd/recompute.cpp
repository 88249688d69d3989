// SPDX-License-Identifier: Apache-2.0
// Regions of the tape that are run again instead of kept.
#include <cstddef>
#include <utility>
#include <vector>

#include "tessera/autograd/tape.hpp"
#include "tessera/base/interval.hpp"
#include "tessera/comm/communicator.hpp"

namespace tessera::autograd {
namespace {

/// A region's input until the backward pass.
class KeptInput {
 public:
  KeptInput(const Stream& stream, const Tensor& input, Communicator* holders)
      : holders_(holders), shape_(input.shape()), kept_(input) {
    if (holders == nullptr) return;
    const Interval own = balanced_share(input.numel(), holders->size(), holders->rank());
    kept_ = input.view(Shape{input.numel()}).rows(own.begin, own.end).clone(stream);
  }

  Tensor whole(const Stream& stream) const {
    if (holders_ == nullptr) return kept_;
    std::vector<std::int64_t> counts;
    for (int rank = 0; rank < holders_->size(); ++rank)
      counts.push_back(balanced_share(shape_.numel(), holders_->size(), rank).size());
    Tensor all(shape_, kept_.dtype(), kept_.device());
    holders_->all_gather_v(kept_.data(), all.data(), counts, kept_.dtype(), stream).wait();
    return all;
  }

 private:
  Communicator* holders_;
  Shape shape_;
  Tensor kept_;
};

}  // namespace

Value recompute(Tape& tape, const Value& input,
                const std::function<Value(Tape&, const Value&)>& body, Communicator* holders) {
  Tape forward(Recording::off, nullptr, tape.stream());
  Value inside = body(forward, Value(input.data()));
  if (!tape.recording()) return inside;
  Value result = tape.result(inside.take_data(), true);
  tape.record({.name = "recompute",
               .output = result.slot(),
               .backward_input =
                   [&tape, body, kept = KeptInput(tape.stream(), input.data(), holders),
                    slot = input.slot()](Tensor& gradient) {
                     Tape again(Recording::on, nullptr, tape.stream());
                     if (tape.splits_backward()) again.split_backward();
                     const Tensor data = kept.whole(tape.stream());
                     const Value start = slot ? Value::leaf(data) : Value(data);
                     Value output = body(again, start);
                     output.take_data();
                     tape.backward_input(again, output, std::move(gradient));
                     if (slot && !start.slot()->empty())
                       slot->add(tape.stream(), start.slot()->take());
                   },
               .backward_weight = {},
               .waits = true});
  return result;
}

}  // namespace tessera::autograd
