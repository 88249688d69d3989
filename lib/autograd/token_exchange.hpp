// SPDX-License-Identifier: Apache-2.0
// The two collectives between the tokens of a rank and those of its tensor group.
#pragma once

#include "tessera/comm/communicator.hpp"
#include "tessera/device/stream.hpp"
#include "tessera/tensor/tensor.hpp"

namespace tessera::autograd {

/// Each rank's [own tokens, width] -> `whole` [..., width] on all of them. Collective.
Tensor gather_shards(const Stream& stream, const Tensor& own, const Shape& whole,
                     Communicator& group);
/// Partial results [..., width] of all tokens -> the sums of own ones, [own tokens, width].
/// Collective.
Tensor sum_to_shards(const Stream& stream, const Tensor& partial, Communicator& group);

}  // namespace tessera::autograd
