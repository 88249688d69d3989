// SPDX-License-Identifier: Apache-2.0
// A file in memory that HDF5 can write, of which only touched blocks take space.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "checkpoint/hdf5.hpp"

namespace tessera::checkpoint {

/// Bytes by position; what nobody wrote is zero.
class SparseFile {
 public:
  std::int64_t size() const { return size_; }
  void resize(std::int64_t size) { size_ = size; }
  void clear();
  void write(std::int64_t at, const void* data, std::size_t bytes);
  void read(std::int64_t at, void* out, std::size_t bytes) const;

 private:
  std::map<std::int64_t, std::vector<std::byte>> blocks_;
  std::int64_t size_ = 0;
};

namespace hdf5 {

/// Makes the access list open and create `file`, whatever the name. It must outlive the HDF5 file.
void use_sparse_file(hid_t access_list, SparseFile& file);

}  // namespace hdf5
}  // namespace tessera::checkpoint
