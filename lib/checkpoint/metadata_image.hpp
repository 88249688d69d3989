// SPDX-License-Identifier: Apache-2.0
// The metadata of a checkpoint that is being saved, in memory until they are copied to the file.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/metadata.hpp"
#include "checkpoint/sparse_file.hpp"
#include "checkpoint/trailer.hpp"

namespace tessera::checkpoint {

/// An HDF5 file of which only the metadata have content. HDF5 does not survive a write that fails:
/// it keeps the broken file open and crashes when the process ends. So it writes to memory, never
/// to a disk that may be full.
class MetadataImage {
 public:
  MetadataImage(const Header& header, std::span<const TensorRecord> tensors, const State& state);

  /// Where each tensor's data begin.
  const std::vector<std::int64_t>& offsets() const { return offsets_; }
  /// Of the file as it is now: the trailer comes when it is sealed.
  std::int64_t bytes() const { return file_.size(); }
  /// Of the whole file.
  std::int64_t sealed_bytes() const;

  /// Adds checksums, `complete` and trailer.
  void seal(std::span<const TensorRecord> tensors, std::span<const std::uint64_t> checksums);
  /// Writes everything that is not tensor data. `path` is for messages.
  void copy_to(int descriptor, const std::string& path) const;

 private:
  SparseFile file_;
  std::vector<std::int64_t> offsets_;
  std::vector<ByteRange> data_;
};

}  // namespace tessera::checkpoint
