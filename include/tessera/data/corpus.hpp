// SPDX-License-Identifier: Apache-2.0
// Text files, JSON lines and indexed token files as one long row of tokens.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tessera/data/token_file.hpp"
#include "tessera/data/tokenizer.hpp"

namespace tessera {
class Runtime;
}

namespace tessera::data {

struct CorpusOptions {
  /// Text files (a document each), .jsonl (a document a line), prefixes of .bin/.idx pairs, and
  /// globs of these: `*`, `?`, `[a-z]`, and `**` for any folders. In the order given, globs sorted.
  std::vector<std::string> sources;
  /// Where JSON lines hold the text.
  std::string field = "text";
  /// For caches when neither $TESSERA_CACHE, $XDG_CACHE_HOME nor $HOME gives a folder that can be
  /// written: the run's folder.
  std::string fallback_cache_folder = ".";
  /// For messages: "data.train".
  std::string name = "data";
};

/// Every document's tokens followed by end-of-text, one after the other; indexed pairs are taken as
/// they are. Text is tokenized once into a cache keyed by paths, sizes and times of the files and
/// by the tokenizer, and mapped.
/// Errors: io and invalid_config naming the pattern or file: no match, unreadable, no tokens,
/// a JSON line that is none or has no such field (file and line).
class Corpus {
 public:
  /// Rank 0, then rank 0 of every other node, builds what is missing; all map it. Every rank gets
  /// the same error. Collective over runtime.world().
  Corpus(Runtime& runtime, const Tokenizer& tokenizer, const CorpusOptions& options);
  /// By one rank alone.
  Corpus(const Tokenizer& tokenizer, const CorpusOptions& options);

  std::int64_t tokens() const { return begins_.back(); }
  std::int64_t documents() const { return document_begins_.back(); }
  /// Document d is tokens [document_begin(d), document_begin(d + 1)), its end-of-text included.
  std::int64_t document_begin(std::int64_t d) const;
  /// Tokens [begin, begin + count). Errors: io for a token outside the tokenizer's vocabulary.
  void read(std::int64_t begin, std::int64_t count, Token* out) const;

 private:
  void open(const std::vector<std::string>& prefixes, const Tokenizer& tokenizer,
            const CorpusOptions& options);

  std::vector<TokenFile> files_;
  std::int64_t vocabulary_size_ = 0;
  std::vector<std::int64_t> begins_;           // of each file in tokens, and the total
  std::vector<std::int64_t> document_begins_;  // of each file in documents, and the total
};

}  // namespace tessera::data
