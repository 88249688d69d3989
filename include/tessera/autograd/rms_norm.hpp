// SPDX-License-Identifier: Apache-2.0
// Root-mean-square normalisation over the last dimension.
#pragma once

#include "tessera/autograd/tape.hpp"
#include "tessera/autograd/weight.hpp"

namespace tessera {
class Communicator;
}

namespace tessera::autograd {

/// Saves x, and the reciprocal root mean square of each row. `keep_output` and `group` as in
/// layer_norm.
Value rms_norm(Tape& tape, const Value& x, Weight& weight, float epsilon, bool keep_output = true,
               Communicator* group = nullptr);

}  // namespace tessera::autograd
