// SPDX-License-Identifier: Apache-2.0
#include "tessera/checkpoint/find_whole.hpp"

#include <sstream>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/checkpoint/checksum.hpp"

namespace tessera::checkpoint {
namespace {

/// The folder's checkpoints as the first rank sees them, the newest first.
std::vector<FolderEntry> shared_entries(Communicator& group, const Folder& folder) {
  std::string text;
  if (group.rank() == 0)
    for (const FolderEntry& entry : folder.entries())
      text += fmt::format("{} {}\n", entry.step, entry.path);
  std::istringstream lines(group.broadcast_text(text, 0));
  std::vector<FolderEntry> entries;
  for (FolderEntry entry; lines >> entry.step && std::getline(lines.ignore(1), entry.path);)
    entries.insert(entries.begin(), entry);
  return entries;
}

std::string describe(const std::string& path, const std::vector<Damage>& damages) {
  const std::string more =
      damages.size() > 1 ? fmt::format(" (and {} more datasets)", damages.size() - 1) : "";
  return fmt::format("the checkpoint {} is damaged: dataset {} has checksum {}, expected {}{}",
                     path, damages[0].path, format_checksum(damages[0].found),
                     format_checksum(damages[0].expected), more);
}

}  // namespace

Reader open_whole(Communicator& group, const std::string& path, bool verify) {
  Reader reader(group, path);
  if (!verify) return reader;
  const std::vector<Damage> damages = reader.verify(group);
  agreeing(group, [&] { TESSERA_CHECK(damages.empty(), Code::io, describe(path, damages)); });
  return reader;
}

FoundCheckpoint find_newest_whole(Communicator& group, const Folder& folder, bool verify) {
  FoundCheckpoint found;
  for (const FolderEntry& entry : shared_entries(group, folder)) {
    try {
      found.reader.emplace(open_whole(group, entry.path, verify));
      return found;
    } catch (const Error& error) {
      if (error.code() != Code::io) throw;
      found.damaged.push_back({entry, error.what()});
    }
  }
  agreeing(group, [&] {
    TESSERA_CHECK(found.damaged.empty(), Code::io,
                  fmt::format("none of the {} checkpoint(s) in {} is whole; the newest: {}. Put a "
                              "whole one there, or begin anew in another folder",
                              found.damaged.size(), folder.path(), found.damaged[0].error));
  });
  return found;
}

}  // namespace tessera::checkpoint
