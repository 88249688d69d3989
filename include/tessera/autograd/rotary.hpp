// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding on the tape.
#pragma once

#include <cstdint>

#include "tessera/autograd/tape.hpp"

namespace tessera::autograd {

struct Rotary {
  Tensor positions;            // [batch, positions] int32
  Tensor inverse_frequencies;  // [head_dim / 2] fp32
  std::int64_t heads;          // the first ones of a row, which are turned; others stay
  std::int64_t head_dim;
};

/// x [batch, positions, columns], heads first. In place where x is its last handle; saves what
/// `options` holds.
Value rotary(Tape& tape, Value x, const Rotary& options);

}  // namespace tessera::autograd
