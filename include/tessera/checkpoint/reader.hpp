// SPDX-License-Identifier: Apache-2.0
// Reading a checkpoint, any part of any tensor on any rank.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tessera/base/dtype.hpp"
#include "tessera/base/shape.hpp"
#include "tessera/checkpoint/writer.hpp"
#include "tessera/comm/communicator.hpp"

namespace tessera::checkpoint {

struct DatasetInfo {
  std::string path;  ///< "parameters/<name>", "optimizer/<state>/<name>"
  Shape shape;
  DType dtype = DType::fp32;
  std::int64_t offset = 0;  ///< of the data in the file
  std::uint64_t checksum = 0;
};

/// A dataset whose content is not what was saved.
struct Damage {
  std::string path;
  std::uint64_t expected = 0;
  std::uint64_t found = 0;
};

/// An open checkpoint. Metadata are read through HDF5 once; data are read straight from the file.
/// Errors: io naming the file and what is wrong: missing, not HDF5, not a Tessera checkpoint,
/// incomplete, truncated, written by a newer version; naming the dataset where one is at fault.
class Reader {
 public:
  /// By one rank alone.
  explicit Reader(const std::string& path);
  /// Rank 0 reads the metadata for all; same error on every rank. Collective.
  Reader(Communicator& group, const std::string& path);
  Reader(Reader&&) noexcept;
  ~Reader();

  const std::string& path() const;
  const Header& header() const;
  const std::string& library_version() const;
  std::int64_t format_version() const;
  /// Every tensor, sorted by path.
  const std::vector<DatasetInfo>& datasets() const;
  bool contains(const std::string& path) const;
  const DatasetInfo& dataset(const std::string& path) const;
  const State& state() const;

  /// Elements [begin, begin + count) of the flattened tensor, converted to `target`. Local.
  void read(const std::string& path, std::int64_t begin, std::int64_t count, DType target,
            void* out) const;
  /// Bytes of tensor data that this Reader has read from the file.
  std::int64_t bytes_read() const;

  /// Recomputes the checksum of every dataset; empty when all is well. Local: reads everything.
  std::vector<Damage> verify() const;
  /// The same with the work divided among the ranks. Collective.
  std::vector<Damage> verify(Communicator& group) const;
  /// Sum over /parameters as saved, as in summary.json.
  std::uint64_t weights_checksum() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera::checkpoint
