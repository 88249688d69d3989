// SPDX-License-Identifier: Apache-2.0
// A file in memory, read-only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace tessera {

/// Maps a whole regular file read-only; pages come from the disk as they are touched. Move-only.
/// Errors: io naming the path and the reason (missing, a folder, no permission).
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::string& path);
  MappedFile(MappedFile&& other) noexcept { swap(other); }
  MappedFile& operator=(MappedFile&& other) noexcept {
    MappedFile(static_cast<MappedFile&&>(other)).swap(*this);
    return *this;
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  const std::byte* data() const { return data_; }
  std::int64_t size() const { return size_; }
  /// Starts to bring these bytes from the disk and returns at once.
  void read_ahead(std::int64_t offset, std::int64_t bytes) const;
  /// Gives pages with these bytes back to the system; they come again from the file when touched. A
  /// pass over a large file then needs little memory.
  void release(std::int64_t offset, std::int64_t bytes) const;
  const std::string& path() const { return path_; }

 private:
  void swap(MappedFile& other) noexcept;

  std::string path_;
  const std::byte* data_ = nullptr;
  std::int64_t size_ = 0;
};

}  // namespace tessera
