// SPDX-License-Identifier: Apache-2.0
#include "tessera/parallel/unit_binding.hpp"

#include <algorithm>
#include <iterator>
#include <vector>

namespace tessera::parallel {

UnitBinding::UnitBinding(nn::Network& model, zero::PartitionedOptimizer& optimizer)
    : model_(model), optimizer_(optimizer) {}

void UnitBinding::attach(int unit, autograd::Phase phase) {
  optimizer_.gather(unit);
  attach_values(unit);
  if (phase == autograd::Phase::backward || phase == autograd::Phase::weights)
    attach_gradients(unit);
}

void UnitBinding::pipe(bool keep) {
  piped_ = true;
  keeps_ = keep;
}

void UnitBinding::begin_step() {
  for (const auto& [name, parameter] : model_.parameters()) parameter->gradient_written = false;
}

void UnitBinding::acquire(int unit, autograd::Phase phase) {
  attach(unit, phase);
  const bool forward = phase == autograd::Phase::forward;
  const auto direction = forward ? zero::Direction::forward : zero::Direction::backward;
  optimizer_.prefetch_after(unit, direction, units_left(unit, direction));
}

int UnitBinding::units_left(int unit, zero::Direction direction) const {
  const std::vector<nn::Unit>& units = model_.units();
  const auto same = [stage = units[static_cast<std::size_t>(unit)].stage](const nn::Unit& other) {
    return other.stage == stage;
  };
  const auto at = units.begin() + unit;
  if (direction == zero::Direction::forward)
    return static_cast<int>(std::find_if_not(at + 1, units.end(), same) - at) - 1;
  const auto before = std::make_reverse_iterator(at);
  return static_cast<int>(std::find_if_not(before, units.rend(), same) - before);
}

void UnitBinding::release(int unit, autograd::Phase) {
  for (const auto& [name, parameter] : model_.units()[static_cast<std::size_t>(unit)].parameters)
    parameter->value = {};
  if (!keeps_) optimizer_.release(unit);
}

void UnitBinding::gradients_ready(int unit) {
  std::vector<bool> written;
  for (const auto& [name, parameter] : model_.units()[static_cast<std::size_t>(unit)].parameters) {
    written.push_back(parameter->gradient_written);
    parameter->gradient = {};
    parameter->value = {};
  }
  optimizer_.gradients_ready(unit, written);
}

// A sender that computes has to look at its messages, or they are not on their way: MPI hands over
// long ones in steps of both sides, where neither the network nor the kernel does it for them.
void UnitBinding::progress() {
  optimizer_.progress();
  if (Communicator* const line = model_.pipeline().group) line->progress();
}

void UnitBinding::attach_values(int unit) {
  int index = optimizer_.layout().unit(unit).first_parameter;
  for (const auto& [name, parameter] : model_.units()[static_cast<std::size_t>(unit)].parameters)
    parameter->value = Tensor::borrow(optimizer_.parameter_data(index++), parameter->shape(),
                                      optimizer_.dtype(), optimizer_.device());
}

void UnitBinding::attach_gradients(int unit) {
  optimizer_.attach_gradients(unit);
  int index = optimizer_.layout().unit(unit).first_parameter;
  for (const auto& [name, parameter] : model_.units()[static_cast<std::size_t>(unit)].parameters) {
    parameter->gradient = Tensor::borrow(optimizer_.gradient_data(index++), parameter->shape(),
                                         optimizer_.gradient_dtype(), optimizer_.device());
    if (!keeps_written()) parameter->gradient_written = optimizer_.gradients_accumulate();
  }
}

}  // namespace tessera::parallel
