// SPDX-License-Identifier: Apache-2.0
// Affine map of the last dimension.
#pragma once

#include <cstdint>

#include "tessera/autograd/tape.hpp"
#include "tessera/autograd/weight.hpp"

namespace tessera::autograd {

/// in_out: [inputs, outputs] as GPT-2 stores it, y = x W; out_in: [outputs, inputs], y = x W^T.
enum class WeightLayout : std::uint8_t { in_out, out_in };

/// x [..., inputs] -> [..., outputs]; bias [outputs] or nullptr. Saves x.
Value linear(Tape& tape, const Value& x, Weight& weight, Weight* bias,
             WeightLayout layout = WeightLayout::in_out);

}  // namespace tessera::autograd
