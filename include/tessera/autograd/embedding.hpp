// SPDX-License-Identifier: Apache-2.0
// Table look-up.
#pragma once

#include "tessera/autograd/tape.hpp"
#include "tessera/autograd/vocabulary_part.hpp"
#include "tessera/autograd/weight.hpp"

namespace tessera::autograd {

/// ids [...] int32 -> [..., columns]: table[ids], plus second_table[second_ids] when there is one
/// (token and position embeddings), rounded once more by that sum. Where `table` is a part of the
/// vocabulary's, its group adds up what the ranks found; the second table is whole. Collective
/// then; with token shards, which are [own tokens, columns], in the backward pass too.
Value embedding(Tape& tape, Weight& table, const Tensor& ids, Weight* second_table = nullptr,
                const Tensor& second_ids = {}, const VocabularyPart& part = {});

}  // namespace tessera::autograd
