// SPDX-License-Identifier: Apache-2.0
#include "tessera/base/file.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <sstream>
#include <system_error>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

#include "tessera/base/atomic_file.hpp"
#include "tessera/base/error.hpp"

namespace tessera {
namespace {

[[noreturn]] void fail_io(const char* action, const std::filesystem::path& path, int error) {
  fail(Code::io, fmt::format("cannot {} '{}': {}", action, path.string(), std::strerror(error)));
}

}  // namespace

std::string read_text(const std::filesystem::path& path) {
  std::error_code ignored;  // what cannot be looked at fails below, with its reason
  if (std::filesystem::is_directory(path, ignored)) fail_io("read", path, EISDIR);
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) fail_io("read", path, errno != 0 ? errno : EIO);
  std::ostringstream text;
  text << file.rdbuf();
  return std::move(text).str();
}

void write_text(const std::filesystem::path& path, std::string_view text) {
  AtomicFile file(path.string());
  file.write(text);
  file.commit();
}

void sync_to_disk(const std::filesystem::path& path) {
  const int handle = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (handle < 0) fail_io("open", path, errno);
  const int result = ::fsync(handle);
  const int error = errno;
  ::close(handle);
  // Some file systems cannot flush a folder and say EINVAL; there is nothing more to do on those.
  if (result != 0 && error != EINVAL) fail_io("flush", path, error);
}

}  // namespace tessera
