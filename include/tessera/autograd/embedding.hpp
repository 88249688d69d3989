// SPDX-License-Identifier: Apache-2.0
// Table look-up.
#pragma once

#include "tessera/autograd/tape.hpp"
#include "tessera/autograd/weight.hpp"

namespace tessera::autograd {

/// ids [...] int32 -> [..., columns]: table[ids], plus second_table[second_ids] when there is one
/// (token and position embeddings), rounded once more by that sum.
Value embedding(Tape& tape, Weight& table, const Tensor& ids, Weight* second_table = nullptr,
                const Tensor& second_ids = {});

}  // namespace tessera::autograd
