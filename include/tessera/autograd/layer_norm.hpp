// SPDX-License-Identifier: Apache-2.0
// Layer normalisation over the last dimension.
#pragma once

#include "tessera/autograd/dropout.hpp"
#include "tessera/autograd/tape.hpp"
#include "tessera/autograd/weight.hpp"

namespace tessera {
class Communicator;
}

namespace tessera::autograd {

/// Saves x, and mean and reciprocal deviation of each row. With `keep_output` false, later
/// operations that would save the result compute it again in the backward pass instead. Where other
/// ranks of `group` have the other rows, the gradients of weight and bias are added up over it, in
/// fp32; the backward pass is collective then.
Value layer_norm(Tape& tape, const Value& x, Weight& weight, Weight& bias, float epsilon,
                 bool keep_output = true, Communicator* group = nullptr);

struct NormedSum {
  Value sum;
  Value normed;
};
/// sum = dropout_add(residual, x) and layer_norm(sum), to the bit; in one step where nothing is
/// dropped.
NormedSum dropout_add_layer_norm(Tape& tape, const Value& residual, Value x,
                                 const DropoutSite& site, Weight& weight, Weight& bias,
                                 float epsilon, bool keep_output = true,
                                 Communicator* group = nullptr);

}  // namespace tessera::autograd
