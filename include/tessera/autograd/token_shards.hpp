// SPDX-License-Identifier: Apache-2.0
// Between operations on all tokens and those on a rank's own, inside a tensor group (Korthikanti et
// al. 2022).
#pragma once

#include <cstdint>

#include "tessera/autograd/tape.hpp"
#include "tessera/base/interval.hpp"

namespace tessera {
class Communicator;
}

namespace tessera::autograd {

/// The tokens of a micro-batch, rows one behind the other, that a rank of the group has: as even as
/// they can be, none where there are fewer than ranks.
Interval token_shard(const Communicator& group, std::int64_t tokens);

/// x [own tokens, width] -> `whole`, of all tokens, where products by columns begin. In the
/// backward pass the gradients that the ranks found are added up, and each takes those of its
/// tokens. Operations that would save the result save x, and gather it once more. Collective, also
/// in the backward pass. Errors: invalid_argument if x is not of the own tokens of `whole`.
Value gather_tokens(Tape& tape, const Value& x, const Shape& whole, Communicator& group);

/// Partial results [..., width] of all tokens -> their sum over the group, [own tokens, width],
/// where products by rows end. The backward pass gathers. Collective, also in the backward pass.
Value scatter_tokens(Tape& tape, Value partial, Communicator& group);

}  // namespace tessera::autograd
