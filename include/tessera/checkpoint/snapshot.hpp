// SPDX-License-Identifier: Apache-2.0
// A copy in host memory of what a rank saves.
#pragma once

#include <vector>

#include "tessera/checkpoint/writer.hpp"
#include "tessera/device/buffer.hpp"

namespace tessera::checkpoint {

/// Keeps its memory (Purpose::snapshot) for the next copy, because fresh memory costs a page fault
/// per page. Local.
class Snapshot {
 public:
  /// Makes room for this rank's pieces and returns the same tensors with pieces that lie there,
  /// without content before copy(); valid until the next call. Errors: out_of_memory.
  std::vector<TensorRecord> prepare(const std::vector<TensorRecord>& tensors);
  /// Copies what prepare() was given. The originals must not change meanwhile, but may be read.
  void copy();

 private:
  struct Item {
    Piece original;
    std::int64_t bytes;
    std::int64_t element;  // bytes
    std::byte* target;
  };
  static void copy_runs(const Item& item);

  Buffer buffer_;
  std::vector<Item> items_;
};

}  // namespace tessera::checkpoint
