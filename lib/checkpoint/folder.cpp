// SPDX-License-Identifier: Apache-2.0
// Listing and cleaning a folder of checkpoints.
#include "tessera/checkpoint/folder.hpp"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <string_view>

#include <fmt/format.h>

#include "tessera/base/atomic_file.hpp"
#include "tessera/base/error.hpp"
#include "tessera/base/log.hpp"
#include "tessera/checkpoint/reader.hpp"

namespace tessera::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "step-";
constexpr std::string_view kSuffix = ".h5";

/// The step of "step-00000100.h5", else nothing.
std::optional<std::int64_t> step_of(std::string_view name) {
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  name.remove_suffix(kSuffix.size());
  std::int64_t step = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), step);
  if (error != std::errc() || end != name.data() + name.size() || step < 0) return std::nullopt;
  return step;
}

}  // namespace

void Folder::create() const {
  std::error_code error;
  fs::create_directories(folder_, error);
  TESSERA_CHECK(!error, Code::io,
                fmt::format("cannot make the folder {}: {}", folder_, error.message()));
}

std::string Folder::name_of(std::int64_t step) const {
  return fmt::format("{}/{}{:08}{}", folder_, kPrefix, step, kSuffix);
}

std::vector<FolderEntry> Folder::entries() const {
  std::vector<FolderEntry> entries;
  std::error_code error;
  for (fs::directory_iterator next(folder_, error); !error && next != fs::directory_iterator();
       next.increment(error)) {
    const auto step = step_of(next->path().filename().string());
    if (step.has_value()) entries.push_back({next->path().string(), *step});
  }
  std::sort(entries.begin(), entries.end(),
            [](const FolderEntry& a, const FolderEntry& b) { return a.step < b.step; });
  return entries;
}

std::optional<FolderEntry> Folder::newest() const {
  const std::vector<FolderEntry> all = entries();
  for (auto entry = all.rbegin(); entry != all.rend(); ++entry) {
    try {
      const Reader whole(entry->path);
      return *entry;
    } catch (const Error& error) {
      log_warning(fmt::format("passing over a checkpoint: {}", error.what()));
    }
  }
  return std::nullopt;
}

std::string Folder::move_later_aside(std::int64_t step) const {
  std::string aside;
  for (const FolderEntry& entry : entries()) {
    if (entry.step <= step) continue;
    std::error_code error;
    for (int i = 1; aside.empty(); ++i) {
      const std::string name = fmt::format("{}.{}", folder_, i);
      if (fs::create_directory(name, error)) aside = name;
      TESSERA_CHECK(!error, Code::io,
                    fmt::format("cannot make the folder {}: {}", name, error.message()));
    }
    fs::rename(entry.path, fs::path(aside) / fs::path(entry.path).filename(), error);
    TESSERA_CHECK(!error, Code::io,
                  fmt::format("cannot move {} to {}: {}", entry.path, aside, error.message()));
  }
  return aside;
}

int Folder::remove_leftovers() const {
  std::vector<fs::path> leftovers;
  std::error_code error;
  for (fs::directory_iterator next(folder_, error); !error && next != fs::directory_iterator();
       next.increment(error)) {
    const std::string name = next->path().filename().string();
    const bool checkpoint = name.find(std::string(kSuffix) + ".") != std::string::npos;
    if (checkpoint && is_temporary_name(name)) leftovers.push_back(next->path());
  }
  for (const fs::path& path : leftovers) {
    log_info(fmt::format("removing {}, left by an interrupted save", path.string()));
    fs::remove(path, error);
  }
  return static_cast<int>(leftovers.size());
}

void Folder::keep(int count, const std::string& protect,
                  const std::vector<std::string>& damaged) const {
  if (count <= 0) return;
  const std::vector<FolderEntry> all = entries();
  std::size_t oldest_kept = all.size();
  for (int kept = 0; kept < count && oldest_kept > 0;) {
    --oldest_kept;
    if (std::ranges::find(damaged, all[oldest_kept].path) == damaged.end()) ++kept;
  }
  for (std::size_t i = 0; i < oldest_kept; ++i) {
    std::error_code error;
    if (!protect.empty() && fs::equivalent(all[i].path, protect, error)) continue;
    fs::remove(all[i].path, error);
    if (error)
      log_warning(
          fmt::format("cannot remove the old checkpoint {}: {}", all[i].path, error.message()));
  }
}

}  // namespace tessera::checkpoint
