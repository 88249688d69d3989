// SPDX-License-Identifier: Apache-2.0
// Recording and replay.
#include "tessera/autograd/tape.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

#include "tessera/base/error.hpp"

namespace tessera::autograd {

Tape::Tape(Recording recording, UnitHooks* hooks, Stream stream)
    : recording_(recording), hooks_(hooks), stream_(std::move(stream)) {}

void Tape::enter(int unit) {
  if (hooks_ == nullptr) return;
  hooks_->acquire(unit, Phase::forward);
  if (!recording()) return;
  const auto use = std::make_shared<Use>(Use{.waiting_before = waiting_});
  entered_[unit] = use;
  record_last_use(unit, use);
}

void Tape::leave(int unit) {
  if (hooks_ == nullptr) return;
  hooks_->release(unit, Phase::forward);
  if (!recording()) return;
  const std::shared_ptr<Use> use = std::move(entered_[unit]);
  entered_.erase(unit);
  use->waits = waiting_ > use->waiting_before;
  record_first_use(unit, use);
}

void Tape::record_last_use(int unit, const std::shared_ptr<Use>& use) {
  record({.name = "unit's last use",
          .output = nullptr,
          .backward_input =
              [hooks = hooks_, unit, use](Tensor&) {
                hooks->release(unit, Phase::backward);
                if (!use->waits) hooks->gradients_ready(unit);
              },
          .backward_weight =
              [hooks = hooks_, unit, use](const Tensor&) {
                if (!use->waits) return;
                hooks->release(unit, Phase::weights);
                hooks->gradients_ready(unit);
              },
          .waits = false});
}

void Tape::record_first_use(int unit, const std::shared_ptr<Use>& use) {
  record({.name = "unit's first use",
          .output = nullptr,
          .backward_input =
              [hooks = hooks_, unit, use](Tensor&) {
                hooks->acquire(unit, use->waits ? Phase::inputs : Phase::backward);
              },
          .backward_weight =
              [hooks = hooks_, unit, use](const Tensor&) {
                if (use->waits) hooks->acquire(unit, Phase::weights);
              },
          .waits = false});
}

// Every operation of a forward pass comes here.
Value Tape::result(Tensor data, bool requires_gradient) const {
  progress();
  return recording() && requires_gradient ? Value::leaf(std::move(data)) : Value(std::move(data));
}

void Tape::record(Node node) {
  TESSERA_CHECK(recording(), Code::internal, "an operation was recorded on a tape that is off");
  if (split_ && node.waits.value_or(node.backward_weight != nullptr)) ++waiting_;
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
    replay(std::move(node));
  }
}

void Tape::replay(Node node) {
  Tensor gradient;
  if (node.output != nullptr) {
    if (node.output->empty()) return;
    gradient = node.output->take();
  }
  progress();
  if (node.backward_input) node.backward_input(gradient);
  if (!node.backward_weight) return;
  if (split_)
    deferred_.push_back({std::move(node.backward_weight), std::move(gradient)});
  else
    node.backward_weight(gradient);
}

void Tape::backward_input() {
  TESSERA_CHECK(split_, Code::invalid_argument,
                "a backward pass in two parts needs a tape that was told so beforehand");
  backward();
}

void Tape::backward_weight() {
  std::vector<Deferred> deferred = std::exchange(deferred_, {});
  std::ranges::reverse(deferred);
  while (!deferred.empty()) {
    const Deferred next = std::move(deferred.back());
    deferred.pop_back();
    progress();
    next.backward_weight(next.gradient);
  }
}

void Tape::backward_input(Tape& inside, const Value& value, Tensor gradient) {
  inside.backward(value, std::move(gradient));
  std::ranges::move(inside.deferred_, std::back_inserter(deferred_));
  inside.deferred_.clear();
}

void Tape::backward(const Value& value, Tensor gradient) {
  TESSERA_CHECK(value.requires_gradient(), Code::invalid_argument,
                "backward from a value that depends on nothing trainable");
  value.slot()->add(stream_, std::move(gradient));
  backward();
}

}  // namespace tessera::autograd
