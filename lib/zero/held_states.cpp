// SPDX-License-Identifier: Apache-2.0
// Memory of optimizer states.
#include "zero/held_states.hpp"

namespace tessera::zero {
namespace {

Buffer zeroed(const Context& context, std::size_t size) {
  const std::size_t bytes = static_cast<std::size_t>(context.held_elements()) * size;
  Buffer buffer = allocate(bytes, context.device(), Purpose::optimizer);
  if (buffer) context.stream.fill_zero(buffer.data(), bytes);
  return buffer;
}

}  // namespace

HeldStates::HeldStates(const Context& context, const optim::UpdateRule& rule) : context_(context) {
  if (context.dtype() == DType::bf16) low_ = zeroed(context, sizeof(std::uint16_t));
  if (context.dtype() == DType::fp16 && !context.options.inference)
    master_ = zeroed(context, sizeof(float));
  for (std::size_t i = 0; i < rule.state_names().size(); ++i)
    states_.push_back(zeroed(context, sizeof(float)));
}

std::uint16_t* HeldStates::low(int unit, std::int64_t unit_begin) const {
  if (!low_) return nullptr;
  return low_.as<std::uint16_t>() + context_.held_index(unit, unit_begin);
}

float* HeldStates::master(int unit, std::int64_t unit_begin) const {
  if (!master_) return nullptr;
  return master_.as<float>() + context_.held_index(unit, unit_begin);
}

float* HeldStates::state(std::size_t which, int unit, std::int64_t unit_begin) const {
  return states_[which].as<float>() + context_.held_index(unit, unit_begin);
}

}  // namespace tessera::zero
