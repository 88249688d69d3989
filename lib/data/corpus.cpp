// SPDX-License-Identifier: Apache-2.0
// Opening a corpus, on one rank or on all.
#include "tessera/data/corpus.hpp"

#include <algorithm>
#include <filesystem>
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/base/error.hpp"
#include "tessera/comm/runtime.hpp"

#include "data/source_list.hpp"
#include "data/text_cache.hpp"

namespace tessera::data {
namespace {

using Json = nlohmann::json;

std::vector<std::string> folders_of(const CorpusOptions& options) {
  return cache_folders(options.fallback_cache_folder + "/cache");
}

/// What every rank opens: an indexed pair by its prefix, or a cache by its key.
struct Part {
  std::string prefix;
  std::string key;
  std::int64_t files = 0;
  std::int64_t bytes = 0;
};

std::vector<Part> plan(const std::vector<SourceGroup>& groups, const Tokenizer& tokenizer,
                       const CorpusOptions& options) {
  std::vector<Part> parts;
  for (const SourceGroup& group : groups) {
    Part part;
    part.prefix = group.prefix;
    if (group.prefix.empty()) part.key = cache_key(group.files, tokenizer, options.field);
    part.files = static_cast<std::int64_t>(group.files.size());
    part.bytes = group.bytes();
    parts.push_back(part);
  }
  return parts;
}

std::string to_text(const std::vector<Part>& parts) {
  Json list = Json::array();
  for (const Part& part : parts) list.push_back({part.prefix, part.key, part.files, part.bytes});
  // Paths may hold bytes that are no UTF-8; they only travel between ranks here.
  const std::vector<std::uint8_t> packed = Json::to_cbor(list);
  return {packed.begin(), packed.end()};
}

std::vector<Part> from_text(const std::string& text) {
  std::vector<Part> parts;
  for (const Json& item : Json::from_cbor(text))
    parts.push_back({item[0], item[1], item[2], item[3]});
  return parts;
}

/// Builds the caches that are missing here, under the keys of `parts`.
void build_missing(const std::vector<Part>& parts, const std::vector<SourceGroup>& groups,
                   const Tokenizer& tokenizer, const CorpusOptions& options) {
  const std::vector<std::string> folders = folders_of(options);
  for (std::size_t i = 0; i < parts.size(); ++i)
    if (parts[i].prefix.empty() && !find_cache(parts[i].key, folders))
      build_cache(parts[i].key, groups[i].files, tokenizer, options, folders);
}

bool all_present(const std::vector<Part>& parts, const CorpusOptions& options) {
  const std::vector<std::string> folders = folders_of(options);
  return std::all_of(parts.begin(), parts.end(), [&](const Part& part) {
    return !part.prefix.empty() || find_cache(part.key, folders).has_value();
  });
}

/// Another node may have a file system of its own: it must hold the same files.
void check_same_sources(const std::vector<Part>& parts, const std::vector<SourceGroup>& groups,
                        const std::string& name) {
  bool same = parts.size() == groups.size();
  for (std::size_t i = 0; same && i < parts.size(); ++i)
    same = parts[i].prefix == groups[i].prefix &&
           parts[i].files == static_cast<std::int64_t>(groups[i].files.size()) &&
           parts[i].bytes == groups[i].bytes();
  TESSERA_CHECK(same, Code::io,
                fmt::format("{} names other files on this node than on rank 0's: copy the data to "
                            "every node or to a file system that all share",
                            name));
}

std::vector<std::string> prefixes(const std::vector<Part>& parts, const CorpusOptions& options) {
  const std::vector<std::string> folders = folders_of(options);
  std::vector<std::string> found;
  for (const Part& part : parts) {
    const auto cache = part.prefix.empty() ? find_cache(part.key, folders) : part.prefix;
    TESSERA_CHECK(cache.has_value(), Code::io,
                  fmt::format("{}: the token cache {} is not visible here; set TESSERA_CACHE to "
                              "the same folder on all ranks of a node",
                              options.name, part.key));
    found.push_back(*cache);
  }
  return found;
}

}  // namespace

Corpus::Corpus(const Tokenizer& tokenizer, const CorpusOptions& options) {
  const auto groups = list_sources(options.sources, options.name);
  const auto parts = plan(groups, tokenizer, options);
  build_missing(parts, groups, tokenizer, options);
  open(prefixes(parts, options), tokenizer, options);
}

Corpus::Corpus(Runtime& runtime, const Tokenizer& tokenizer, const CorpusOptions& options) {
  Communicator& world = runtime.world();
  std::string text;
  agreeing(world, [&] {
    if (runtime.rank() != 0) return;
    const auto groups = list_sources(options.sources, options.name);
    const auto parts = plan(groups, tokenizer, options);
    build_missing(parts, groups, tokenizer, options);
    text = to_text(parts);
  });
  const std::vector<Part> parts = from_text(world.broadcast_text(text, 0));
  agreeing(world, [&] {
    if (runtime.local_rank() != 0 || all_present(parts, options)) return;
    const auto groups = list_sources(options.sources, options.name);
    check_same_sources(parts, groups, options.name);
    build_missing(parts, groups, tokenizer, options);
  });
  agreeing(world, [&] { open(prefixes(parts, options), tokenizer, options); });
  const std::string mine = fmt::format("{} tokens in {} documents", tokens(), documents());
  const std::vector<std::string> all = world.all_gather_text(mine);
  for (std::size_t rank = 0; rank < all.size(); ++rank)
    TESSERA_CHECK(all[rank] == all[0], Code::io,
                  fmt::format("{} has {} on rank 0 but {} on rank {}: the nodes do not see the "
                              "same files",
                              options.name, all[0], all[rank], rank));
}

void Corpus::open(const std::vector<std::string>& prefixes, const Tokenizer& tokenizer,
                  const CorpusOptions& options) {
  begins_ = {0};
  document_begins_ = {0};
  for (const std::string& prefix : prefixes) {
    files_.emplace_back(prefix);
    begins_.push_back(begins_.back() + files_.back().tokens());
    document_begins_.push_back(document_begins_.back() + files_.back().documents());
  }
  vocabulary_size_ = tokenizer.vocabulary_size();
  TESSERA_CHECK(tokens() > 0, Code::invalid_config,
                fmt::format("{}: there is not one token in it", options.name));
}

std::int64_t Corpus::document_begin(std::int64_t d) const {
  TESSERA_CHECK(d >= 0 && d <= documents(), Code::invalid_argument,
                fmt::format("document {} of {}", d, documents()));
  if (d == documents()) return tokens();
  const auto after = std::upper_bound(document_begins_.begin(), document_begins_.end(), d);
  const auto file = static_cast<std::size_t>(after - document_begins_.begin()) - 1;
  return begins_[file] + files_[file].document_begin(d - document_begins_[file]);
}

void Corpus::read(std::int64_t begin, std::int64_t count, Token* out) const {
  TESSERA_CHECK(begin >= 0 && count >= 0 && begin <= tokens() - count, Code::invalid_argument,
                fmt::format("tokens [{}, {} + {}) of {}", begin, begin, count, tokens()));
  const auto after = std::upper_bound(begins_.begin(), begins_.end(), begin);
  auto file = static_cast<std::size_t>(after - begins_.begin()) - 1;
  for (std::int64_t done = 0; done < count; ++file) {
    const std::int64_t position = begin + done - begins_[file];
    const std::int64_t part = std::min(count - done, files_[file].tokens() - position);
    files_[file].read(position, part, out + done);
    done += part;
  }
  // Caches are checked when they are written; pairs by others may belong to another tokenizer.
  const Token* high = std::max_element(out, out + count);
  TESSERA_CHECK(count == 0 || *high < vocabulary_size_, Code::io,
                fmt::format("the data hold token {}, but the tokenizer's vocabulary has {} entries",
                            *high, vocabulary_size_));
}

}  // namespace tessera::data
