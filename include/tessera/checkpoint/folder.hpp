// SPDX-License-Identifier: Apache-2.0
// The folder of a run's checkpoints: names, the newest, cleaning up.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tessera::checkpoint {

struct FolderEntry {
  std::string path;
  std::int64_t step = 0;
};

/// `step-00000100.h5` files of one folder. Local: call it on one rank and tell the others.
class Folder {
 public:
  explicit Folder(std::string folder) : folder_(std::move(folder)) {}

  const std::string& path() const { return folder_; }
  /// Makes the folder and its parents. Errors: io.
  void create() const;
  std::string name_of(std::int64_t step) const;
  /// Checkpoints by step, the newest last. A missing folder has none.
  std::vector<FolderEntry> entries() const;
  /// The newest that opens as a whole checkpoint; every newer one that does not is warned about
  /// with its reason.
  std::optional<FolderEntry> newest() const;
  /// Removes what interrupted saves left (temporary names of .h5 files); returns how many.
  int remove_leftovers() const;
  /// Moves checkpoints of later steps to a new folder beside this one, whose name is returned; ""
  /// if there are none. Errors: io.
  std::string move_later_aside(std::int64_t step) const;
  /// Removes what is older than the `count` newest, and never `protect`; count <= 0 keeps all.
  /// Paths in `damaged` do not count as kept. Call it after a commit.
  void keep(int count, const std::string& protect = "",
            const std::vector<std::string>& damaged = {}) const;

 private:
  std::string folder_;
};

}  // namespace tessera::checkpoint
