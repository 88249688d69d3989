// SPDX-License-Identifier: Apache-2.0
// The part of a vocabulary that one rank of a tensor-parallel group holds.
#pragma once

#include <cstdint>

namespace tessera::kernels {

/// Ids from `first` on, as many as the table has rows or the logits valid columns, of `vocabulary`
/// ids in all; 0: the table or the logits are whole.
struct VocabularySlice {
  std::int64_t first = 0;
  std::int64_t vocabulary = 0;
};

}  // namespace tessera::kernels
