// SPDX-License-Identifier: Apache-2.0
// Other ways to bring a training state to disk and back, to measure ours against.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <mpi.h>

#include "tessera/checkpoint/writer.hpp"

namespace tessera::bench {

/// Fills memory with what no disk can compress or store once only.
void fill_with_noise(std::span<std::byte> bytes);

/// Consecutive bytes of a file.
struct BytePlace {
  std::int64_t begin, end;
};

/// One file that every rank writes and reads its equal share of, in blocks of 4 MiB. Errors: as
/// tessera::Error, on the rank that has them; a benchmark ends with it.
class RawFile {
 public:
  RawFile(MPI_Comm comm, std::string path, std::int64_t bytes);

  /// Through the page cache, then fsync: what a file system gives to a program that must be sure.
  void write_buffered();
  /// Past the page cache (O_DIRECT). False where the file system refuses that.
  bool write_direct();
  void read();
  /// The same number of bytes from where they lie in another file, as far as `places` go.
  void read_from(const std::string& path, std::span<const BytePlace> places);

  /// Makes the file new: an empty one, as every save begins with. Collective.
  void remove();

 private:
  void write(int flags);

  MPI_Comm comm_;
  std::string path_;
  std::int64_t begin_ = 0, end_ = 0;  // this rank's bytes of the file
  std::vector<std::byte> state_;      // that many and room to align them
};

/// Rank 0 collects every tensor from its owners and writes alone, as torch.save does. Collective.
void write_by_one_rank(MPI_Comm comm, const std::string& path,
                       const std::vector<checkpoint::TensorRecord>& tensors);

/// Collective H5Dwrite of parallel HDF5, a call for each tensor. Collective.
void write_by_hdf5(MPI_Comm comm, const std::string& path,
                   const std::vector<checkpoint::TensorRecord>& tensors);

/// Makes the next read of the file come from the disk. Local.
void forget_cached(const std::string& path);

}  // namespace tessera::bench
