// SPDX-License-Identifier: Apache-2.0
// A table of the vocabulary of which each rank of a group holds some rows.
#pragma once

#include "tessera/kernels/vocabulary_slice.hpp"

namespace tessera {
class Communicator;
}

namespace tessera::autograd {

/// Without a group the table is whole.
struct VocabularyPart {
  kernels::VocabularySlice slice;
  Communicator* group = nullptr;
  /// Each rank of the group has its own tokens (token_shard) of what a look-up makes and of what a
  /// head takes; ids and targets are those of all.
  bool token_shards = false;
};

}  // namespace tessera::autograd
