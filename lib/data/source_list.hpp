// SPDX-License-Identifier: Apache-2.0
// What the entries of `data.train` name: files to tokenize and indexed pairs.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace tessera::data {

struct SourceFile {
  std::string path;  // absolute
  std::int64_t size = 0;
  std::int64_t modified = 0;  // nanoseconds
  bool json_lines = false;
};

/// Either an indexed pair, or files that share one cache because they follow each other.
struct SourceGroup {
  std::string prefix;  // empty: files
  std::vector<SourceFile> files;

  std::int64_t bytes() const;
};

/// Expands `sources` in order. `name` goes into messages ("data.train").
/// Errors: invalid_config naming the entry that matches nothing or is a folder.
std::vector<SourceGroup> list_sources(std::span<const std::string> sources,
                                      const std::string& name);

}  // namespace tessera::data
