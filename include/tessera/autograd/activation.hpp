// SPDX-License-Identifier: Apache-2.0
// Pointwise activation functions.
#pragma once

#include "tessera/autograd/tape.hpp"
#include "tessera/kernels/activation.hpp"

namespace tessera::autograd {

/// Saves x. `keep_output` as in layer_norm.
Value activation(Tape& tape, const Value& x, kernels::Activation function, bool keep_output = true);

}  // namespace tessera::autograd
