// SPDX-License-Identifier: Apache-2.0
// The product of a projection and an activation function of another (Shazeer 2020).
#pragma once

#include "tessera/autograd/tape.hpp"
#include "tessera/kernels/activation.hpp"

namespace tessera::autograd {

/// gate_up [2, ...], both halves one after the other -> [...]: function(gate) * up. Saves gate_up,
/// and writes its gradient in its place. `keep_output` as in layer_norm.
Value gated_activation(Tape& tape, Value gate_up, kernels::Activation function,
                       bool keep_output = true);

}  // namespace tessera::autograd
