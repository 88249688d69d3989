// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/stage.hpp"

#include <algorithm>
#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "tessera/base/atomic_file.hpp"
#include "tessera/base/shape.hpp"

#include "base/transfer_limit.hpp"
#include "checkpoint/fault_point.hpp"

namespace tessera::checkpoint {
namespace {

constexpr std::int64_t kPage = 4096;
// Below this the system does better with its cache.
constexpr std::int64_t kDirectBytes = std::int64_t{256} << 10;

std::int64_t round_down(std::int64_t value, std::int64_t multiple) {
  return value / multiple * multiple;
}

}  // namespace

Stage::Stage(int descriptor, const std::string& path, std::int64_t bytes, WriteReport& report)
    : descriptor_(descriptor),
      path_(path),
      buffer_(allocate(
          static_cast<std::size_t>(round_up(std::max<std::int64_t>(bytes, 1), kPage) + 2 * kPage),
          Device{}, Purpose::workspace)),
      capacity_(static_cast<std::int64_t>(buffer_.bytes()) - kPage),
      report_(report) {
  const auto address = reinterpret_cast<std::uintptr_t>(buffer_.data());
  begin_ = buffer_.as<std::byte>() + (kPage - address % kPage) % kPage;
  // By its descriptor: `path` is the name that the file is going to have.
  direct_ =
      ::open(fmt::format("/proc/self/fd/{}", descriptor).c_str(), O_WRONLY | O_DIRECT | O_CLOEXEC);
}

Stage::~Stage() {
  if (direct_ >= 0) ::close(direct_);
}

std::int64_t Stage::make_room(std::int64_t offset, std::int64_t bytes, std::int64_t item) {
  // Elements stay aligned for their type, also after narrower ones.
  if (offset != offset_ + used_ || free() < item || (lead_ + used_) % item != 0) flush();
  if (used_ == 0) {
    offset_ = offset;
    lead_ = offset % item == 0 ? offset % kPage : 0;
  }
  return std::min(bytes, round_down(free(), item));
}

void Stage::flush() {
  if (used_ == 0) return;
  fault_point("write");
  const std::int64_t end = offset_ + used_;
  const std::int64_t first_page = round_up(offset_, kPage), last_page = round_down(end, kPage);
  std::int64_t written = offset_;
  if (direct_ >= 0 && lead_ == offset_ % kPage && last_page - first_page >= kDirectBytes) {
    write(offset_, first_page);
    written = write_direct(first_page, last_page);
  }
  write(written, end);
  report_.bytes += used_;
  used_ = 0;
}

/// Writes from one page of the file to another as far as the system lets it; returns where it
/// stopped. What is left, and any error, is for the ordinary way.
std::int64_t Stage::write_direct(std::int64_t begin, std::int64_t end) {
  const auto most = round_down(static_cast<std::int64_t>(largest_transfer()), kPage);
  if (most == 0) return begin;
  const auto written = ::pwrite(direct_, begin_ + lead_ + (begin - offset_),
                                static_cast<std::size_t>(std::min(end - begin, most)), begin);
  if (written > 0) {
    ++report_.writes;
    return begin + round_down(written, kPage);
  }
  ::close(direct_);
  direct_ = -1;
  return begin;
}

void Stage::write(std::int64_t begin, std::int64_t end) {
  if (begin == end) return;
  write_at(descriptor_, begin_ + lead_ + (begin - offset_), static_cast<std::size_t>(end - begin),
           begin, path_);
  ++report_.writes;
}

}  // namespace tessera::checkpoint
