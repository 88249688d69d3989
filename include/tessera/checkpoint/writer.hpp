// SPDX-License-Identifier: Apache-2.0
// Saving a checkpoint: one HDF5 file that all ranks of a group write at once.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tessera/base/dtype.hpp"
#include "tessera/base/shape.hpp"
#include "tessera/comm/communicator.hpp"

namespace tessera::checkpoint {

/// Attributes of the file's root. The rest (`format`, `format_version`, `library_version`,
/// `complete`) is written by the Writer.
struct Header {
  std::int64_t step = 0;
  std::int64_t samples = 0;
  std::int64_t tokens = 0;
  std::string model;   ///< config.json text
  std::string config;  ///< resolved run file
};

/// Elements of a flattened tensor that this rank writes: [begin, begin + count), or `rows` such
/// runs, each `stride` elements behind the one before (columns of a matrix). They come from host
/// memory at `data` in the dataset's type, runs `data_stride` elements apart, or, where they are
/// not held in that form (a split master, a device), from `fill(offset, n, target)`, which writes
/// the piece's elements offset … offset + n, numbered run after run, to `target`; it is called in
/// ascending order for bounded n.
struct Piece {
  using Fill = std::function<void(std::int64_t offset, std::int64_t count, void* target)>;

  std::int64_t begin = 0;
  std::int64_t count = 0;
  const void* data = nullptr;
  Fill fill;
  std::int64_t rows = 1;
  std::int64_t stride = 0;
  std::int64_t data_stride = 0;

  std::int64_t elements() const { return rows * count; }
};

/// One dataset: `path` is "parameters/<name>", "optimizer/<state>/<name>". Every rank lists the
/// same datasets in the same order, with its own pieces (often none). List tensors in the order of
/// the flat units and a rank's neighbouring pieces become one transfer.
struct TensorRecord {
  std::string path;
  Shape shape;
  DType dtype = DType::fp32;
  std::vector<Piece> pieces;
};

/// Names under /state with their JSON texts.
using State = std::map<std::string, std::string>;

struct WriteOptions {
  /// A file of that name is replaced at the commit, else it is an error before anything is written.
  bool replace = false;
  /// Bound of the staging buffer beyond the state itself.
  std::int64_t staging_bytes = std::int64_t{4} << 20;
};

/// Of this rank, but `file_bytes` and `seconds` (creation to commit).
struct WriteReport {
  std::int64_t bytes = 0;   ///< tensor data that this rank wrote
  std::int64_t writes = 0;  ///< in so many transfers
  std::int64_t file_bytes = 0;
  double seconds = 0;
  double write_seconds = 0;  ///< of them in write()
};

/// The three phases of a save. Rank 0 creates the file with all metadata and space through HDF5;
/// every rank writes its pieces at the offsets that HDF5 reports; rank 0 adds checksums, flushes
/// and renames. Until commit() returns only a temporary name exists, and it is removed when
/// anything fails or the Writer is destroyed first.
///
/// Collective: construction, create, commit, over `group`; their errors are the same on every rank.
/// write() is local and calls neither MPI nor HDF5, so it may run on another thread; its error is
/// kept and thrown by commit() on all ranks. `group` must outlive the Writer. Rank 0 reads header
/// and state of its own arguments; others' are ignored.
/// Errors: invalid_argument when ranks list different datasets, or the pieces of all ranks do not
/// cover each tensor exactly once; io naming the file and the reason.
class Writer {
 public:
  Writer(Communicator& group, std::string path, Header header, std::vector<TensorRecord> tensors,
         State state, const WriteOptions& options = {});
  ~Writer();
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  void create();
  void write() noexcept;
  WriteReport commit();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// create, write, commit. Collective.
WriteReport save(Communicator& group, const std::string& path, const Header& header,
                 std::vector<TensorRecord> tensors, const State& state,
                 const WriteOptions& options = {});

}  // namespace tessera::checkpoint
