// SPDX-License-Identifier: Apache-2.0
// Where a tensor-parallel region of a network begins.
#pragma once

#include "tessera/autograd/tape.hpp"

namespace tessera {
class Communicator;
}

namespace tessera::autograd {

/// From here on every rank of `group` uses x, the same on all of them, for a part of the work: when
/// the backward pass comes back to this place, the gradients that the ranks found are added up
/// (the conjugate of row_linear's sum; f and g in Shoeybi et al. 2019, section 3). Collective in
/// the backward pass.
void reduce_gradient(Tape& tape, const Value& x, Communicator& group);

}  // namespace tessera::autograd
