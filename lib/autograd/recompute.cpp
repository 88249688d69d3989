// SPDX-License-Identifier: Apache-2.0
// Regions of the tape that are run again instead of kept.
#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "tessera/autograd/tape.hpp"
#include "tessera/base/interval.hpp"
#include "tessera/comm/communicator.hpp"
#include "tessera/device/cuda.hpp"

namespace tessera::autograd {
namespace {

/// A region's input until the backward pass.
class KeptInput {
 public:
  KeptInput(const Stream& stream, const Tensor& input, const KeptInputs& how)
      : holders_(how.holders), shape_(input.shape()), kept_(input) {
    if (holders_ != nullptr) {
      const Interval own = balanced_share(input.numel(), holders_->size(), holders_->rank());
      kept_ = input.view(Shape{input.numel()}).rows(own.begin, own.end);
    }
    if (how.on_host && !stream.device().is_cpu()) {
      host_ =
          std::make_shared<Buffer>(allocate_pinned(kept_.bytes(), Purpose::activations, stream));
      stream.copy(host_->data(), kept_.data(), kept_.bytes());
      kept_ = Tensor::borrow(host_->data(), kept_.shape(), kept_.dtype());
    } else if (holders_ != nullptr) {
      kept_ = kept_.clone(stream);
    }
  }

  Tensor whole(const Stream& stream) const {
    const Tensor own = on_device(stream);
    if (holders_ == nullptr) return own;
    std::vector<std::int64_t> counts;
    for (int rank = 0; rank < holders_->size(); ++rank)
      counts.push_back(balanced_share(shape_.numel(), holders_->size(), rank).size());
    Tensor all(shape_, own.dtype(), stream.device());
    holders_->all_gather_v(own.data(), all.data(), counts, own.dtype(), stream).wait();
    return all;
  }

 private:
  Tensor on_device(const Stream& stream) const {
    if (!host_) return kept_;
    Tensor own(kept_.shape(), kept_.dtype(), stream.device());
    stream.copy(own.data(), kept_.data(), own.bytes());
    return own;
  }

  Communicator* holders_;
  Shape shape_;
  Tensor kept_;
  std::shared_ptr<Buffer> host_;  // its elements, if they are on the host
};

}  // namespace

Value recompute(Tape& tape, const Value& input,
                const std::function<Value(Tape&, const Value&)>& body, const KeptInputs& kept) {
  Tape forward = tape.inside(Recording::off);
  Value inside = body(forward, Value(input.data()));
  if (!tape.recording()) return inside;
  Value result = tape.result(inside.take_data(), true);
  tape.record({.name = "recompute",
               .output = result.slot(),
               .backward_input =
                   [&tape, body, kept = KeptInput(tape.stream(), input.data(), kept),
                    slot = input.slot()](Tensor& gradient) {
                     Tape again = tape.inside(Recording::on);
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
