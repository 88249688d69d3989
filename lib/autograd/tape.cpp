// SPDX-License-Identifier: Apache-2.0
// Recording and replay.
#include "tessera/autograd/tape.hpp"

#include <utility>

#include "tessera/base/error.hpp"

namespace tessera::autograd {

Tape::Tape(Recording recording, UnitHooks* hooks, Stream stream)
    : recording_(recording), hooks_(hooks), stream_(std::move(stream)) {}

void Tape::enter(int unit) {
  if (hooks_ == nullptr) return;
  hooks_->acquire(unit, Phase::forward);
  if (!recording()) return;
  UnitHooks* hooks = hooks_;
  record({.name = "unit's last use",
          .output = nullptr,
          .backward_input =
              [hooks, unit](Tensor&) {
                hooks->release(unit, Phase::backward);
                hooks->gradients_ready(unit);
              },
          .backward_weight = {}});
}

void Tape::leave(int unit) {
  if (hooks_ == nullptr) return;
  hooks_->release(unit, Phase::forward);
  if (!recording()) return;
  UnitHooks* hooks = hooks_;
  record({.name = "unit's first use",
          .output = nullptr,
          .backward_input = [hooks, unit](Tensor&) { hooks->acquire(unit, Phase::backward); },
          .backward_weight = {}});
}

Value Tape::result(Tensor data, bool requires_gradient) const {
  return recording() && requires_gradient ? Value::leaf(std::move(data)) : Value(std::move(data));
}

void Tape::record(Node node) {
  TESSERA_CHECK(recording(), Code::internal, "an operation was recorded on a tape that is off");
  nodes_.push_back(std::move(node));
}

void Tape::backward() {
  TESSERA_CHECK(recording(), Code::invalid_argument,
                "backward needs a tape that recorded the forward pass");
  // Moved out, so that an exception on the way drops what is left.
  std::vector<Node> nodes = std::exchange(nodes_, {});
  while (!nodes.empty()) {
    Node node = std::move(nodes.back());
    nodes.pop_back();
    Tensor gradient;
    if (node.output != nullptr) {
      if (node.output->empty()) continue;
      gradient = node.output->take();
    }
    if (node.backward_input) node.backward_input(gradient);
    if (node.backward_weight) node.backward_weight(gradient);
  }
}

void Tape::backward(const Value& value, Tensor gradient) {
  TESSERA_CHECK(value.requires_gradient(), Code::invalid_argument,
                "backward from a value that depends on nothing trainable");
  value.slot()->add(stream_, std::move(gradient));
  backward();
}

}  // namespace tessera::autograd
