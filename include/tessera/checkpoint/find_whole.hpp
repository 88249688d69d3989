// SPDX-License-Identifier: Apache-2.0
// Which checkpoint to continue from: the newest of a folder that is whole.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tessera/checkpoint/folder.hpp"
#include "tessera/checkpoint/reader.hpp"
#include "tessera/comm/communicator.hpp"

namespace tessera::checkpoint {

/// A checkpoint that was not used, and why.
struct PassedOver {
  FolderEntry entry;
  std::string error;
};

struct FoundCheckpoint {
  std::optional<Reader> reader;     ///< nothing in a folder without checkpoints
  std::vector<PassedOver> damaged;  ///< newer ones, the newest first
};

/// Opens a checkpoint; with `verify`, all ranks together recompute its checksums first, which reads
/// the file once. Collective: over `group`. Errors: as Reader's; io naming the dataset with the
/// checksum that is expected and the one that was found.
Reader open_whole(Communicator& group, const std::string& path, bool verify);

/// The newest checkpoint of `folder` that opens without an error. Collective: over `group`.
/// Errors: io if there are checkpoints and none is whole: to begin anew would overwrite what can
/// perhaps be saved.
FoundCheckpoint find_newest_whole(Communicator& group, const Folder& folder, bool verify);

}  // namespace tessera::checkpoint
