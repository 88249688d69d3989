// SPDX-License-Identifier: Apache-2.0
// Everything of a checkpoint file but the elements of its tensors, as one rank sees it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tessera/checkpoint/reader.hpp"
#include "tessera/checkpoint/writer.hpp"

#include "checkpoint/sparse_file.hpp"

namespace tessera::checkpoint {

inline constexpr std::int64_t kFormatVersion = 1;

struct Metadata {
  std::int64_t format_version = 0;
  std::string library_version;
  Header header;
  State state;
  std::vector<DatasetInfo> datasets;  // sorted by path
  std::int64_t file_bytes = 0;
};

/// Makes `target` an HDF5 file with all metadata, and space but no content for the
/// tensors. Returns where each tensor's data begin. The file is not `complete` yet.
std::vector<std::int64_t> create_file(SparseFile& target, const Header& header,
                                      std::span<const TensorRecord> tensors, const State& state);

/// Writes the tensors' checksums and marks the file as complete.
void seal_file(SparseFile& target, std::span<const TensorRecord> tensors,
               std::span<const std::uint64_t> checksums);

/// Reads and checks all of it. Errors as Reader's.
Metadata read_metadata(const std::string& path);

/// To send it to other ranks.
std::string pack(const Metadata& metadata);
Metadata unpack(const std::string& text);

}  // namespace tessera::checkpoint
