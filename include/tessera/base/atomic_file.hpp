// SPDX-License-Identifier: Apache-2.0
// Files that are whole or absent: written under a temporary name, then renamed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tessera {

/// "<path>.tmp-<host>-<process>-<n>": a name in the same folder that nobody else uses.
std::string temporary_name(const std::string& path);
/// True for names that temporary_name makes.
bool is_temporary_name(std::string_view path);

/// Renames and flushes the folder. With replace == false an existing target is an io error.
void rename_file(const std::string& from, const std::string& to, bool replace);
/// Gives a whole folder its name. With replace, an existing folder of that name is exchanged for it
/// in one step and then removed; else it is an io error. Errors: io naming the path and the reason.
void rename_folder(const std::string& from, const std::string& to, bool replace);
/// The folder part of a path, "." if it has none.
std::string folder_of(const std::string& path);

/// A new file under a temporary name; commit() gives it its name, destruction without commit
/// removes it. Errors: io naming the path and the reason, e.g. no space left.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, std::size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  /// Flushes to the disk and renames over `path`.
  void commit();

 private:
  std::string path_;
  std::string temporary_;
  int descriptor_ = -1;
};

/// Writes at `offset` of an open file until all is written. Errors: io naming `path`.
void write_at(int descriptor, const void* data, std::size_t bytes, std::int64_t offset,
              const std::string& path);
/// Reads exactly `bytes`; the end of the file before that is an io error naming `path`.
void read_at(int descriptor, void* data, std::size_t bytes, std::int64_t offset,
             const std::string& path);

}  // namespace tessera
