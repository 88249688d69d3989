// SPDX-License-Identifier: Apache-2.0
// Mapping files through POSIX.
#include "tessera/base/mapped_file.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/shape.hpp"

namespace tessera {
namespace {

constexpr std::int64_t kPage = 4096;

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  TESSERA_CHECK(descriptor >= 0, Code::io,
                fmt::format("cannot open {}: {}", path, std::strerror(errno)));
  struct stat status {};
  const bool known = ::fstat(descriptor, &status) == 0;
  const bool regular = known && S_ISREG(status.st_mode);
  void* data = nullptr;
  int error = 0;
  if (regular && status.st_size > 0) {
    data = ::mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ, MAP_SHARED,
                  descriptor, 0);
    if (data == MAP_FAILED) error = errno;
  }
  ::close(descriptor);
  TESSERA_CHECK(regular, Code::io, fmt::format("cannot read {}: it is not a regular file", path));
  TESSERA_CHECK(error == 0, Code::io, fmt::format("cannot map {}: {}", path, std::strerror(error)));
  data_ = static_cast<const std::byte*>(data);
  size_ = static_cast<std::int64_t>(status.st_size);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr)
    ::munmap(const_cast<std::byte*>(data_), static_cast<std::size_t>(size_));  // NOLINT
}

void MappedFile::read_ahead(std::int64_t offset, std::int64_t bytes) const {
  if (bytes <= 0) return;
  const std::int64_t begin = offset / kPage * kPage;
  // Only a hint.
  ::madvise(const_cast<std::byte*>(data_) + begin,  // NOLINT
            static_cast<std::size_t>(offset + bytes - begin), MADV_WILLNEED);
}

void MappedFile::release(std::int64_t offset, std::int64_t bytes) const {
  if (bytes <= 0) return;
  // Linux maps up to so many bytes around a page that is touched.
  constexpr std::int64_t kAround = std::int64_t{1} << 21;
  const std::int64_t begin = offset / kAround * kAround;
  const std::int64_t end = std::min(round_up(offset + bytes, kAround), size_);
  // Only a hint: a refusal changes nothing but the memory in use.
  ::madvise(const_cast<std::byte*>(data_) + begin,  // NOLINT
            static_cast<std::size_t>(end - begin), MADV_DONTNEED);
}

void MappedFile::swap(MappedFile& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
}

}  // namespace tessera
