// SPDX-License-Identifier: Apache-2.0
// Whole-or-absent files through POSIX.
#include "tessera/base/atomic_file.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/file.hpp"

#include "base/transfer_limit.hpp"

namespace tessera {
namespace {

constexpr std::string_view kMark = ".tmp-";

[[noreturn]] void fail_io(const char* what, const std::string& path, int error) {
  fail(Code::io, fmt::format("cannot {} {}: {}", what, path, std::strerror(error)));
}

[[noreturn]] void fail_exists(const std::string& path) {
  fail(Code::io, fmt::format("{} exists already and is not overwritten", path));
}

// Some file systems cannot exchange names or refuse existing ones by themselves.
bool cannot(int error) {
  return error == EINVAL || error == ENOSYS || error == ENOTSUP;
}

// For those: the old folder steps aside, and comes back if the new one cannot take its name.
void replace_folder_in_steps(const std::string& from, const std::string& to) {
  const std::string aside = temporary_name(to);
  if (std::rename(to.c_str(), aside.c_str()) != 0) fail_io("rename", to, errno);
  if (std::rename(from.c_str(), to.c_str()) == 0) {
    std::filesystem::remove_all(aside);
    return;
  }
  const int error = errno;
  std::rename(aside.c_str(), to.c_str());
  fail_io("rename to", to, error);
}

void replace_folder(const std::string& from, const std::string& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0)
    std::filesystem::remove_all(from);
  else if (cannot(errno))
    replace_folder_in_steps(from, to);
  else
    fail_io("rename to", to, errno);
}

}  // namespace

std::size_t& largest_transfer() {
  static std::size_t bytes = std::size_t{1} << 30;
  return bytes;
}

std::string temporary_name(const std::string& path) {
  static std::atomic<int> count{0};
  char host[64] = {};
  ::gethostname(host, sizeof host - 1);
  return fmt::format("{}{}{}-{}-{}", path, kMark, host, ::getpid(), count++);
}

bool is_temporary_name(std::string_view path) {
  const auto slash = path.rfind('/');
  const auto name = slash == std::string_view::npos ? path : path.substr(slash + 1);
  return name.find(kMark) != std::string_view::npos;
}

std::string folder_of(const std::string& path) {
  const auto slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

void rename_file(const std::string& from, const std::string& to, bool replace) {
  if (replace) {
    if (std::rename(from.c_str(), to.c_str()) != 0) fail_io("rename to", to, errno);
  } else {
    // A link refuses an existing name without a gap between looking and renaming.
    if (::link(from.c_str(), to.c_str()) == 0) {
      ::unlink(from.c_str());
    } else if (errno == EEXIST || ::access(to.c_str(), F_OK) == 0) {
      fail_exists(to);
    } else if (std::rename(from.c_str(), to.c_str()) != 0) {  // no links on this file system
      fail_io("rename to", to, errno);
    }
  }
  sync_to_disk(folder_of(to));
}

void rename_folder(const std::string& from, const std::string& to, bool replace) {
  if (replace && std::filesystem::exists(to)) {
    replace_folder(from, to);
  } else if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) != 0) {
    if (std::filesystem::exists(to)) fail_exists(to);
    if (!cannot(errno) || std::rename(from.c_str(), to.c_str()) != 0)
      fail_io("rename to", to, errno);
  }
  sync_to_disk(folder_of(to));
}

AtomicFile::AtomicFile(std::string path)
    : path_(std::move(path)), temporary_(temporary_name(path_)) {
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail_io("create", path_, errno);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, std::size_t bytes) {
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t done = ::write(descriptor_, next, std::min(bytes, largest_transfer()));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail_io("write", path_, errno);
    next += done;
    bytes -= static_cast<std::size_t>(done);
  }
}

void AtomicFile::commit() {
  if (::fsync(descriptor_) != 0) fail_io("flush", path_, errno);
  const int closed = ::close(descriptor_);
  descriptor_ = -1;
  if (closed != 0 || std::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary_.c_str());
    fail_io("write", path_, error);
  }
  sync_to_disk(folder_of(path_));
}

void write_at(int descriptor, const void* data, std::size_t bytes, std::int64_t offset,
              const std::string& path) {
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t done = ::pwrite(descriptor, next, std::min(bytes, largest_transfer()), offset);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail_io("write", path, errno);
    next += done;
    offset += done;
    bytes -= static_cast<std::size_t>(done);
  }
}

void read_at(int descriptor, void* data, std::size_t bytes, std::int64_t offset,
             const std::string& path) {
  char* next = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t done = ::pread(descriptor, next, std::min(bytes, largest_transfer()), offset);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail_io("read", path, errno);
    TESSERA_CHECK(done > 0, Code::io,
                  fmt::format("{} is truncated: {} bytes are missing at {}", path, bytes, offset));
    next += done;
    offset += done;
    bytes -= static_cast<std::size_t>(done);
  }
}

}  // namespace tessera
