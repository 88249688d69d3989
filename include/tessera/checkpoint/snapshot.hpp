// SPDX-License-Identifier: Apache-2.0
// A copy in host memory of what a rank saves.
#pragma once

#include <vector>

#include "tessera/checkpoint/writer.hpp"
#include "tessera/device/buffer.hpp"

namespace tessera::checkpoint {

/// Keeps its memory (Purpose::snapshot) for the next copy, because fresh memory costs a page fault
/// per page.
class Snapshot {
 public:
  /// The same tensors with pieces that are copies of this rank's, valid until the next copy. Local.
  /// Errors: out_of_memory.
  std::vector<TensorRecord> copy(std::vector<TensorRecord> tensors);

 private:
  Buffer buffer_;
};

}  // namespace tessera::checkpoint
