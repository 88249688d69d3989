// SPDX-License-Identifier: Apache-2.0
// Expanding file name patterns.
#include "tessera/data/glob.hpp"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <tuple>
#include <utility>

namespace tessera::data {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> split_path(const std::string& pattern) {
  std::vector<std::string> parts;
  std::string part;
  for (const char c : pattern + "/") {
    if (c != '/') {
      part += c;
    } else if (!part.empty()) {
      parts.push_back(std::exchange(part, {}));
    }
  }
  return parts;
}

/// The set at pattern[i] == '[': whether `c` is in it, and the place after ']'. Without ']' the
/// bracket stands for itself.
std::pair<bool, std::size_t> match_set(std::string_view pattern, std::size_t i, char c) {
  const std::size_t close = pattern.find(']', i + 2);
  if (close == std::string_view::npos) return {c == '[', i + 1};
  std::string_view set = pattern.substr(i + 1, close - i - 1);
  const bool inverted = set.size() > 1 && (set[0] == '!' || set[0] == '^');
  if (inverted) set.remove_prefix(1);
  bool found = false;
  for (std::size_t k = 0; k < set.size(); ++k) {
    if (k + 2 < set.size() && set[k + 1] == '-') {
      found |= set[k] <= c && c <= set[k + 2];
      k += 2;
    } else {
      found |= set[k] == c;
    }
  }
  return {found != inverted, close + 1};
}

class Walk {
 public:
  explicit Walk(std::vector<std::string> parts) : parts_(std::move(parts)) {}

  void enter(const fs::path& folder, std::size_t part) {
    const std::string& pattern = parts_[part];
    if (pattern == "**") return enter_any_depth(folder, part);
    if (!has_wildcard(pattern)) return take(folder / pattern, part);
    for (const fs::directory_entry& entry : list(folder))
      if (matches(pattern, entry.path().filename().string())) take(entry.path(), part);
  }

  std::vector<std::string> results() && {
    std::sort(results_.begin(), results_.end());
    results_.erase(std::unique(results_.begin(), results_.end()), results_.end());
    return std::move(results_);
  }

 private:
  static std::vector<fs::directory_entry> list(const fs::path& folder) {
    std::vector<fs::directory_entry> entries;
    std::error_code error;
    fs::directory_iterator next(folder.empty() ? fs::path(".") : folder, error);
    for (; !error && next != fs::directory_iterator(); next.increment(error)) {
      // Entries of a relative pattern shall look as the user wrote it, without "./".
      entries.push_back(*next);
      if (folder.empty()) entries.back().assign(next->path().filename(), error);
    }
    return entries;
  }

  void take(const fs::path& path, std::size_t part) {
    std::error_code error;
    const bool last = part + 1 == parts_.size();
    if (last && fs::is_regular_file(path, error)) results_.push_back(path.string());
    if (!last && fs::is_directory(path, error)) enter(path, part + 1);
  }

  void enter_any_depth(const fs::path& folder, std::size_t part) {
    const bool last = part + 1 == parts_.size();
    if (!last) enter(folder, part + 1);
    for (const fs::directory_entry& entry : list(folder)) {
      if (entry.path().filename().string().starts_with('.')) continue;
      std::error_code error;
      if (entry.is_directory(error) && !entry.is_symlink(error))
        enter_any_depth(entry.path(), part);
      else if (last && entry.is_regular_file(error))
        results_.push_back(entry.path().string());
    }
  }

  std::vector<std::string> parts_;
  std::vector<std::string> results_;
};

}  // namespace

bool has_wildcard(std::string_view pattern) {
  return pattern.find_first_of("*?[") != std::string_view::npos;
}

bool matches(std::string_view pattern, std::string_view name) {
  if (name.starts_with('.') && !pattern.starts_with('.')) return false;
  std::size_t p = 0;
  std::size_t n = 0;
  std::size_t star = std::string_view::npos;  // where to go on after giving the star one more
  std::size_t star_name = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = ++p;
      star_name = n;
      continue;
    }
    bool matched = false;
    std::size_t next = p + 1;
    if (p < pattern.size() && pattern[p] == '[')
      std::tie(matched, next) = match_set(pattern, p, name[n]);
    else if (p < pattern.size())
      matched = pattern[p] == '?' || pattern[p] == name[n];
    if (matched) {
      p = next;
      ++n;
    } else if (star != std::string_view::npos) {
      p = star;
      n = ++star_name;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

std::vector<std::string> expand_glob(const std::string& pattern) {
  const std::vector<std::string> parts = split_path(pattern);
  if (parts.empty()) return {};
  Walk walk(parts);
  walk.enter(pattern.starts_with('/') ? fs::path("/") : fs::path(), 0);
  return std::move(walk).results();
}

}  // namespace tessera::data
