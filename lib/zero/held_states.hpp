// SPDX-License-Identifier: Apache-2.0
// Optimizer states and the masters' low halves of the elements that this rank updates, and the
// update itself.
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
  /// nullptr in fp32 runs.
  std::uint16_t* low(int unit, std::int64_t unit_begin) const;
  float* state(std::size_t which, int unit, std::int64_t unit_begin) const;
  std::size_t states() const { return states_.size(); }

 private:
  Context context_;
  Buffer low_;
  std::vector<Buffer> states_;
};

}  // namespace tessera::zero
