// SPDX-License-Identifier: Apache-2.0
// Memory that the ranks of one node share: MPI-3 windows, kept for reuse.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include <mpi.h>

#include "comm/group.hpp"

namespace tessera::comm {

/// An address that every rank of the node can name.
struct Place {
  std::int32_t window = -1;
  std::int64_t offset = 0;
};

/// Bytes of shared memory that this node can still give, smallest over the group's ranks, which
/// must be one node's. TESSERA_SHM_LIMIT_BYTES pretends a size of the whole. Collective.
std::int64_t free_shared_memory(Group& node);

class WindowTable {
 public:
  explicit WindowTable(Group& node) : node_(node) {}

  /// A zeroed window with `bytes` for this rank; sizes may differ. Reuses one that all ranks have
  /// let go. Empty on all ranks when the shared-memory file system is too small. Collective.
  std::optional<int> acquire(std::int64_t bytes);
  /// This rank no longer uses the window.
  void release(int window) { windows_[static_cast<std::size_t>(window)].in_use = false; }
  /// Frees all windows, used or not. Collective.
  void close();

  std::byte* base(int window, int rank) const {
    return windows_[static_cast<std::size_t>(window)].bases[static_cast<std::size_t>(rank)];
  }
  std::byte* at(const Place& place, int rank) const {
    return base(place.window, rank) + place.offset;
  }
  /// Where [data, data + bytes) lies in this rank's windows; window -1 when it does not.
  Place find(const void* data, std::int64_t bytes) const;

 private:
  struct Window {
    MPI_Win handle = MPI_WIN_NULL;
    std::vector<std::byte*> bases;
    std::vector<std::int64_t> capacities;
    bool in_use = false;
  };

  std::optional<int> choose_free(const std::vector<std::int64_t>& needs,
                                 const std::vector<std::uint64_t>& free_everywhere) const;
  std::optional<int> create(const std::vector<std::int64_t>& needs);
  void free_unused(const std::vector<std::uint64_t>& free_everywhere);

  Group& node_;
  std::vector<Window> windows_;
  std::map<const std::byte*, int> by_address_;
};

}  // namespace tessera::comm
