// SPDX-License-Identifier: Apache-2.0
// Looking at each source once: what it is, its size and time.
#include "data/source_list.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <sys/stat.h>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/data/glob.hpp"
#include "tessera/data/token_file.hpp"

namespace tessera::data {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPairEndings[] = {".bin", ".idx"};

/// The prefix that `path` names: itself, or without .bin or .idx; "" if it is no part of a pair.
std::string pair_prefix(const std::string& path) {
  if (TokenFile::present(path)) return path;
  for (const std::string_view ending : kPairEndings)
    if (path.ends_with(ending)) return path.substr(0, path.size() - ending.size());
  return {};
}

std::string absolute(const std::string& path) {
  return fs::absolute(path).lexically_normal().string();
}

SourceFile look_at(const std::string& path, const std::string& name) {
  struct stat status {};
  TESSERA_CHECK(::stat(path.c_str(), &status) == 0, Code::io,
                fmt::format("{}: cannot read {}: {}", name, path, std::strerror(errno)));
  SourceFile file;
  file.path = absolute(path);
  file.size = static_cast<std::int64_t>(status.st_size);
  file.modified =
      std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + std::int64_t{status.st_mtim.tv_nsec};
  file.json_lines = path.ends_with(".jsonl");
  return file;
}

/// The files or the pair of one entry, in order.
std::vector<std::string> expand(const std::string& source, const std::string& name) {
  std::error_code ignored;
  if (fs::is_regular_file(source, ignored) || TokenFile::present(source)) return {source};
  TESSERA_CHECK(!fs::is_directory(source, ignored), Code::invalid_config,
                fmt::format("{}: '{}' is a folder; name its files, e.g. '{}/**/*.txt'", name,
                            source, source));
  TESSERA_CHECK(has_wildcard(source), Code::invalid_config,
                fmt::format("{}: '{}' does not exist", name, source));
  std::vector<std::string> found = expand_glob(source);
  TESSERA_CHECK(!found.empty(), Code::invalid_config,
                fmt::format("{}: no file matches '{}'", name, source));
  return found;
}

}  // namespace

std::int64_t SourceGroup::bytes() const {
  std::int64_t sum = 0;
  for (const SourceFile& file : files) sum += file.size;
  return sum;
}

std::vector<SourceGroup> list_sources(std::span<const std::string> sources,
                                      const std::string& name) {
  TESSERA_CHECK(!sources.empty(), Code::invalid_config, fmt::format("{} names no files", name));
  std::vector<SourceGroup> groups;
  for (const std::string& source : sources) {
    for (const std::string& path : expand(source, name)) {
      const std::string prefix = pair_prefix(path);
      if (prefix.empty()) {
        if (groups.empty() || !groups.back().prefix.empty()) groups.emplace_back();
        groups.back().files.push_back(look_at(path, name));
      } else if (groups.empty() || groups.back().prefix != absolute(prefix)) {
        groups.push_back({absolute(prefix), {}});  // once, though a glob finds .bin and .idx
      }
    }
  }
  return groups;
}

}  // namespace tessera::data
