// SPDX-License-Identifier: Apache-2.0
// The bounded buffer between a rank's state and the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "tessera/checkpoint/writer.hpp"
#include "tessera/device/buffer.hpp"

namespace tessera::checkpoint {

/// Gathers neighbouring pieces and writes each contiguous run at once. Whole pages of long runs go
/// past the page cache (O_DIRECT) where the file system allows it: what nobody reads soon need not
/// be copied once more, nor push out what is read. The rest of a run, and everything elsewhere, is
/// written through the cache.
class Stage {
 public:
  /// `descriptor` is of the file `path`, open for writing; `bytes` bounds the buffer but for a few
  /// pages.
  Stage(int descriptor, const std::string& path, std::int64_t bytes, WriteReport& report);
  ~Stage();
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;

  /// Room at end() for up to `bytes` bytes that belong at `offset`, of elements of `item` bytes;
  /// returns for how many, at least one element's.
  std::int64_t make_room(std::int64_t offset, std::int64_t bytes, std::int64_t item);
  std::byte* end() const { return begin_ + lead_ + used_; }
  void advance(std::int64_t bytes) { used_ += bytes; }

  /// Writes what is held. Errors: io naming the path.
  void flush();

 private:
  std::int64_t free() const { return capacity_ - lead_ - used_; }
  std::int64_t write_direct(std::int64_t begin, std::int64_t end);
  void write(std::int64_t begin, std::int64_t end);

  int descriptor_;
  int direct_ = -1;  // the same file without the page cache; -1 where that does not work
  const std::string& path_;
  Buffer buffer_;
  std::int64_t capacity_;  // whole pages
  std::byte* begin_;       // of a page
  WriteReport& report_;
  std::int64_t lead_ = 0;  // bytes left out so that memory and file begin alike within a page
  std::int64_t offset_ = -1;
  std::int64_t used_ = 0;
};

}  // namespace tessera::checkpoint
