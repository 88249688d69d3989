// SPDX-License-Identifier: Apache-2.0
// Partial results of the ranks of a tensor-parallel group.
#pragma once

#include "tessera/comm/communicator.hpp"
#include "tessera/device/stream.hpp"
#include "tessera/tensor/tensor.hpp"

namespace tessera::autograd {

/// Replaces each rank's elements by their sum over the group. Collective.
void sum_over_group(const Stream& stream, const Tensor& tensor, Communicator& group);

}  // namespace tessera::autograd
