// SPDX-License-Identifier: Apache-2.0
// What a path that a caller names stands for.
#pragma once

#include <string>

namespace tessera::c {

/// "folder/name.h5" is a file; anything else is a folder, and the tag stays empty.
struct CheckpointPath {
  std::string folder;
  std::string tag;

  explicit CheckpointPath(const std::string& path) : folder(path) {
    constexpr const char* kEnding = ".h5";
    if (!path.ends_with(kEnding)) return;
    const std::size_t slash = path.find_last_of('/');
    const std::size_t name = slash == std::string::npos ? 0 : slash + 1;
    folder = slash == std::string::npos ? "." : path.substr(0, name);
    tag = path.substr(name, path.size() - name - 3);
  }
};

}  // namespace tessera::c
