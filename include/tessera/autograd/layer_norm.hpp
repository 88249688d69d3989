// SPDX-License-Identifier: Apache-2.0
// Layer normalisation over the last dimension.
#pragma once

#include "tessera/autograd/tape.hpp"
#include "tessera/autograd/weight.hpp"

namespace tessera::autograd {

/// Saves x, and mean and reciprocal deviation of each row. With `keep_output` false, later
/// operations that would save the result compute it again in the backward pass instead.
Value layer_norm(Tape& tape, const Value& x, Weight& weight, Weight& bias, float epsilon,
                 bool keep_output = true);

}  // namespace tessera::autograd
