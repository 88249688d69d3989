// SPDX-License-Identifier: Apache-2.0
// Affine map of the last dimension.
#pragma once

#include <cstdint>

#include "tessera/autograd/tape.hpp"
#include "tessera/autograd/weight.hpp"
#include "tessera/kernels/activation.hpp"

namespace tessera {
class Communicator;
}

namespace tessera::autograd {

/// in_out: [inputs, outputs] as GPT-2 stores it, y = x W; out_in: [outputs, inputs], y = x W^T.
enum class WeightLayout : std::uint8_t { in_out, out_in };

/// x [..., inputs] -> [..., outputs]; bias [outputs] or nullptr. Saves x.
Value linear(Tape& tape, const Value& x, Weight& weight, Weight* bias,
             WeightLayout layout = WeightLayout::in_out);

/// activation(linear(x)), in one step where the device has one for that function; saves x and the
/// function's argument. `keep_output` as in layer_norm; without it the function has a step of its
/// own, which the backward pass repeats to the bit.
Value linear_activation(Tape& tape, const Value& x, Weight& weight, Weight* bias,
                        kernels::Activation function, bool keep_output = true,
                        WeightLayout layout = WeightLayout::in_out);

/// The linear map of a group of which each rank has some of the inputs, and the weights that belong
/// to them: the partial products are added up over the group, so that every rank has the whole
/// result. The bias, whole on every rank, counts once. Backward needs no communication: the
/// gradient of the result is the same on all ranks. Collective.
Value row_linear(Tape& tape, const Value& x, Weight& weight, Weight* bias, Communicator& group,
                 WeightLayout layout = WeightLayout::in_out);

/// The same, of which each rank gets its own tokens, [own tokens, outputs] (token_shards.hpp): a
/// reduce-scatter in place of an all-reduce. Collective, also in the backward pass, which gathers
/// the gradient of the result, so that every rank finds that of the bias.
Value row_linear_to_shards(Tape& tape, const Value& x, Weight& weight, Weight* bias,
                           Communicator& group, WeightLayout layout = WeightLayout::in_out);

}  // namespace tessera::autograd
