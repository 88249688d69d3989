// SPDX-License-Identifier: Apache-2.0
// Optimizer states and what 16-bit weights lack of their fp32 masters, of the elements that this
// rank updates.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tessera/device/buffer.hpp"
#include "tessera/optim/update_rule.hpp"

#include "zero/context.hpp"

namespace tessera::zero {

class HeldStates {
 public:
  /// Not collective.
  HeldStates(const Context& context, const optim::UpdateRule& rule);
  /// Lower halves of bf16 masters; nullptr in other runs.
  std::uint16_t* low(int unit, std::int64_t unit_begin) const;
  /// Whole masters of fp16 weights; nullptr in other runs, and where nothing is trained.
  float* master(int unit, std::int64_t unit_begin) const;
  float* state(std::size_t which, int unit, std::int64_t unit_begin) const;
  std::size_t states() const { return states_.size(); }

 private:
  Context context_;
  Buffer low_, master_;
  std::vector<Buffer> states_;
};

}  // namespace tessera::zero
