// SPDX-License-Identifier: Apache-2.0
// The tape's side of a pointwise function, for operations that compute it in one step with another.
#pragma once

#include "tessera/autograd/tape.hpp"
#include "tessera/kernels/activation.hpp"

namespace tessera::autograd {

/// The value of `data` = function(x), which has been computed.
Value record_activation(Tape& tape, const Value& x, Tensor data, kernels::Activation function);

}  // namespace tessera::autograd
