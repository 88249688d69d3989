// SPDX-License-Identifier: Apache-2.0
// Building and finding token caches.
#include "data/text_cache.hpp"

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <memory>
#include <string_view>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/base/error.hpp"
#include "tessera/base/file.hpp"
#include "tessera/base/log.hpp"
#include "tessera/base/mapped_file.hpp"
#include "tessera/base/number_format.hpp"
#include "tessera/base/random.hpp"
#include "tessera/base/timer.hpp"

namespace tessera::data {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

// A change of what a cache holds for the same sources changes this.
constexpr std::string_view kCacheVersion = "tokens-1";
// Source text that is held in memory at once.
constexpr std::int64_t kBatchBytes = std::int64_t{64} << 20;
constexpr double kProgressSeconds = 5;

std::uint64_t hash_text(std::string_view text, std::uint64_t start) {
  std::uint64_t hash = start;
  for (const char c : text) hash = mix(hash, static_cast<unsigned char>(c));
  return mix(hash, text.size() + 256);
}

/// A text file, or a line of a file of JSON lines.
struct Document {
  const SourceFile* file = nullptr;
  std::shared_ptr<const MappedFile> lines;
  std::int64_t begin = 0;
  std::int64_t size = 0;
  std::int64_t line = 0;
};

std::string line_text(const Document& document, const std::string& field) {
  const auto* begin = reinterpret_cast<const char*>(document.lines->data()) + document.begin;
  const auto where = [&] { return fmt::format("{}:{}", document.file->path, document.line); };
  Json value;
  try {
    value = Json::parse(begin, begin + document.size);
  } catch (const Json::exception& error) {
    fail(Code::io, fmt::format("{}: not a JSON object: {}", where(), error.what()));
  }
  const bool found = value.is_object() && value.contains(field) && value[field].is_string();
  TESSERA_CHECK(
      found, Code::io,
      fmt::format("{}: no text in the field '{}'; data.field names another", where(), field));
  return value[field].get<std::string>();
}

class Builder {
 public:
  Builder(const std::string& prefix, const Tokenizer& tokenizer, const CorpusOptions& options,
          std::int64_t total_bytes)
      : tokenizer_(tokenizer),
        options_(options),
        writer_(prefix, tokenizer.vocabulary_size()),
        total_bytes_(total_bytes) {}

  void add(const SourceFile& file) {
    if (file.json_lines)
      add_lines(file);
    else
      add_document({&file, nullptr, 0, file.size, 0});
  }

  void finish() {
    flush();
    TESSERA_CHECK(text_tokens_ > 0, Code::invalid_config,
                  fmt::format("{}: the {} documents hold no text", options_.name, documents_));
    writer_.commit();
    log_info(fmt::format("tokenized {} documents into {} tokens in {:.1f} s",
                         format_count(static_cast<double>(documents_)),
                         format_count(static_cast<double>(writer_.tokens())), timer_.seconds()));
  }

 private:
  void add_lines(const SourceFile& file) {
    const auto lines = std::make_shared<const MappedFile>(file.path);
    if (lines->size() == 0) return;
    const std::string_view text(reinterpret_cast<const char*>(lines->data()),
                                static_cast<std::size_t>(lines->size()));
    std::int64_t number = 0;
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = std::min(text.find('\n', begin), text.size());
      ++number;
      const std::string_view line = text.substr(begin, end - begin);
      if (line.find_first_not_of(" \t\r") != std::string_view::npos)
        add_document({&file, lines, static_cast<std::int64_t>(begin),
                      static_cast<std::int64_t>(line.size()), number});
      begin = end + 1;
    }
  }

  void add_document(Document document) {
    pending_bytes_ += document.size;
    pending_.push_back(std::move(document));
    if (pending_bytes_ >= kBatchBytes) flush();
  }

  std::vector<std::byte> encode(const Document& document) const {
    const std::string text =
        document.lines ? line_text(document, options_.field) : read_text(document.file->path);
    std::vector<Token> tokens = tokenizer_.encode(text);
    tokens.push_back(tokenizer_.end_of_text());
    std::vector<std::byte> ids;
    writer_.append_ids(tokens, ids);
    return ids;
  }

  /// Encodes what is pending on all threads and writes it in order.
  void flush() {
    std::vector<std::vector<std::byte>> ids(pending_.size());
    std::vector<std::exception_ptr> errors(pending_.size());
#pragma omp parallel for schedule(dynamic)
    for (std::size_t i = 0; i < pending_.size(); ++i) {
      try {
        ids[i] = encode(pending_[i]);
      } catch (...) {
        errors[i] = std::current_exception();
      }
    }
    for (std::size_t i = 0; i < pending_.size(); ++i) {
      if (errors[i]) std::rethrow_exception(errors[i]);
      text_tokens_ += static_cast<std::int64_t>(ids[i].size()) / writer_.item_size() - 1;
      writer_.add_encoded(ids[i]);
    }
    documents_ += static_cast<std::int64_t>(pending_.size());
    done_bytes_ += pending_bytes_;
    pending_.clear();
    pending_bytes_ = 0;
    if (progress_.seconds() < kProgressSeconds) return;
    progress_.restart();
    log_info(fmt::format("tokenized {} of {}", format_bytes(static_cast<double>(done_bytes_)),
                         format_bytes(static_cast<double>(total_bytes_))));
  }

  const Tokenizer& tokenizer_;
  const CorpusOptions& options_;
  TokenFileWriter writer_;
  std::vector<Document> pending_;
  std::int64_t pending_bytes_ = 0;
  std::int64_t done_bytes_ = 0;
  std::int64_t total_bytes_;
  std::int64_t documents_ = 0;
  std::int64_t text_tokens_ = 0;
  Timer timer_;
  Timer progress_;
};

/// Makes `folder` if it is missing; true if files can be created there.
bool can_write(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  return ::access(folder.c_str(), W_OK | X_OK) == 0;
}

}  // namespace

std::string cache_key(std::span<const SourceFile> files, const Tokenizer& tokenizer,
                      const std::string& field) {
  std::string text = fmt::format("{}\n{}\n{}\n", kCacheVersion, tokenizer.fingerprint(), field);
  for (const SourceFile& file : files)
    text += fmt::format("{}\n{} {}\n", file.path, file.size, file.modified);
  return fmt::format("{:016x}{:016x}", hash_text(text, 1), hash_text(text, 2));
}

std::vector<std::string> cache_folders(const std::string& fallback) {
  std::vector<std::string> folders;
  const auto add = [&](const char* variable, const char* below) {
    const char* value = std::getenv(variable);
    if (value != nullptr && *value != '\0') folders.push_back(std::string(value) + below);
  };
  add("TESSERA_CACHE", "");
  add("XDG_CACHE_HOME", "/tessera");
  add("HOME", "/.cache/tessera");
  folders.push_back(fallback);
  return folders;
}

std::optional<std::string> find_cache(const std::string& key,
                                      std::span<const std::string> folders) {
  for (const std::string& folder : folders) {
    const std::string prefix = folder + "/" + key;
    if (!TokenFile::present(prefix)) continue;
    try {
      const TokenFile whole(prefix);
      return prefix;
    } catch (const Error& error) {
      log_warning_once(fmt::format("a damaged token cache is built again: {}", error.what()));
    }
  }
  return std::nullopt;
}

std::string build_cache(const std::string& key, std::span<const SourceFile> files,
                        const Tokenizer& tokenizer, const CorpusOptions& options,
                        std::span<const std::string> folders) {
  const auto folder = std::find_if(folders.begin(), folders.end(), can_write);
  TESSERA_CHECK(folder != folders.end(), Code::io,
                fmt::format("no folder for the token cache can be written, last tried '{}': set "
                            "TESSERA_CACHE",
                            folders.back()));
  std::int64_t bytes = 0;
  for (const SourceFile& file : files) bytes += file.size;
  log_info(fmt::format("{}: tokenizing {} {} ({}) into {}", options.name, files.size(),
                       files.size() == 1 ? "file" : "files",
                       format_bytes(static_cast<double>(bytes)), *folder));
  std::string prefix = *folder + "/" + key;
  Builder builder(prefix, tokenizer, options, bytes);
  for (const SourceFile& file : files) builder.add(file);
  builder.finish();
  return prefix;
}

}  // namespace tessera::data
