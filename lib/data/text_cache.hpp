// SPDX-License-Identifier: Apache-2.0
// Tokenized text kept on the disk, so that it is tokenized once.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tessera/data/corpus.hpp"
#include "tessera/data/tokenizer.hpp"

#include "data/source_list.hpp"

namespace tessera::data {

/// 32 hexadecimal digits that change with any path, size, time, tokenizer, field or format version.
std::string cache_key(std::span<const SourceFile> files, const Tokenizer& tokenizer,
                      const std::string& field);

/// Folders to look in, best first: $TESSERA_CACHE, $XDG_CACHE_HOME/tessera, $HOME/.cache/tessera,
/// then `fallback`.
std::vector<std::string> cache_folders(const std::string& fallback);

/// The prefix of a whole and valid cache of this key.
std::optional<std::string> find_cache(const std::string& key, std::span<const std::string> folders);

/// Tokenizes `files` in parallel into the first of `folders` that can be written; returns the
/// prefix. Errors: as Corpus.
std::string build_cache(const std::string& key, std::span<const SourceFile> files,
                        const Tokenizer& tokenizer, const CorpusOptions& options,
                        std::span<const std::string> folders);

}  // namespace tessera::data
