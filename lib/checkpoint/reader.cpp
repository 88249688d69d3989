// SPDX-License-Identifier: Apache-2.0
// Reading straight from the places that the metadata name.
#include "tessera/checkpoint/reader.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "tessera/base/atomic_file.hpp"
#include "tessera/base/error.hpp"
#include "tessera/checkpoint/checksum.hpp"
#include "tessera/device/buffer.hpp"

#include "checkpoint/metadata.hpp"
#include "checkpoint/sum_over_ranks.hpp"

namespace tessera::checkpoint {
namespace {

constexpr std::int64_t kBlockBytes = std::int64_t{4} << 20;
// A rank's parts lie in many places, where the system's read-ahead begins anew; shorter reads let
// it run while earlier bytes are copied.
constexpr std::int64_t kReadBytes = std::int64_t{1} << 20;

}  // namespace

struct Reader::Impl {
  std::string path;
  Metadata metadata;
  int descriptor = -1;
  mutable std::int64_t bytes_read = 0;

  explicit Impl(std::string name) : path(std::move(name)) {}
  ~Impl() {
    if (descriptor >= 0) ::close(descriptor);
  }

  void open() {
    descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    TESSERA_CHECK(descriptor >= 0, Code::io,
                  fmt::format("cannot open the checkpoint {}: {}", path, std::strerror(errno)));
  }

  const DatasetInfo* find(const std::string& name) const {
    const auto& all = metadata.datasets;
    const auto found = std::lower_bound(
        all.begin(), all.end(), name,
        [](const DatasetInfo& info, const std::string& key) { return info.path < key; });
    return found != all.end() && found->path == name ? &*found : nullptr;
  }

  void read_stored(const DatasetInfo& info, std::int64_t begin, std::int64_t count,
                   void* out) const {
    const auto item = static_cast<std::int64_t>(size_of(info.dtype));
    const std::int64_t offset = info.offset + begin * item, bytes = count * item;
    for (std::int64_t done = 0; done < bytes; done += kReadBytes)
      read_at(descriptor, static_cast<std::byte*>(out) + done,
              static_cast<std::size_t>(std::min(kReadBytes, bytes - done)), offset + done, path);
    bytes_read += bytes;
  }

  /// The part of a checksum that elements [begin, end) make.
  std::uint64_t checksum(const DatasetInfo& info, std::int64_t begin, std::int64_t end,
                         const Buffer& block) const {
    const std::int64_t step = kBlockBytes / static_cast<std::int64_t>(size_of(info.dtype));
    std::uint64_t sum = 0;
    for (; begin < end; begin += step) {
      const std::int64_t count = std::min(step, end - begin);
      read_stored(info, begin, count, block.data());
      sum += checksum_range(checksum_name(info.path), begin, block.data(), info.dtype, count);
    }
    return sum;
  }

  /// Sums of this rank's share of every dataset.
  std::vector<std::uint64_t> checksums(int rank, int ranks) const {
    const Buffer block =
        allocate(static_cast<std::size_t>(kBlockBytes), Device{}, Purpose::workspace);
    std::vector<std::uint64_t> sums;
    for (const DatasetInfo& info : metadata.datasets) {
      const std::int64_t share = ceil_divide(info.shape.numel(), ranks);
      const std::int64_t begin = std::min(rank * share, info.shape.numel());
      const std::int64_t end = std::min(begin + share, info.shape.numel());
      sums.push_back(checksum(info, begin, end, block));
    }
    return sums;
  }

  std::vector<Damage> compare(const std::vector<std::uint64_t>& found) const {
    std::vector<Damage> damage;
    for (std::size_t i = 0; i < found.size(); ++i) {
      const DatasetInfo& info = metadata.datasets[i];
      if (found[i] != info.checksum) damage.push_back({info.path, info.checksum, found[i]});
    }
    return damage;
  }
};

Reader::Reader(const std::string& path) : impl_(std::make_unique<Impl>(path)) {
  impl_->metadata = read_metadata(path);
  impl_->open();
}

Reader::Reader(Communicator& group, const std::string& path) : impl_(std::make_unique<Impl>(path)) {
  const Traffic::Pause pause(group.traffic());
  std::string text;
  agreeing(group, [&] {
    if (group.rank() == 0) text = pack(read_metadata(path));
  });
  impl_->metadata = unpack(group.broadcast_text(text, 0));
  agreeing(group, [&] { impl_->open(); });
}

Reader::Reader(Reader&&) noexcept = default;
Reader::~Reader() = default;

const std::string& Reader::path() const {
  return impl_->path;
}
const Header& Reader::header() const {
  return impl_->metadata.header;
}
const std::string& Reader::library_version() const {
  return impl_->metadata.library_version;
}
std::int64_t Reader::format_version() const {
  return impl_->metadata.format_version;
}
const std::vector<DatasetInfo>& Reader::datasets() const {
  return impl_->metadata.datasets;
}
bool Reader::contains(const std::string& path) const {
  return impl_->find(path) != nullptr;
}
const State& Reader::state() const {
  return impl_->metadata.state;
}
std::int64_t Reader::bytes_read() const {
  return impl_->bytes_read;
}

const DatasetInfo& Reader::dataset(const std::string& path) const {
  const DatasetInfo* info = impl_->find(path);
  TESSERA_CHECK(info != nullptr, Code::io,
                fmt::format("the checkpoint {} has no dataset {}", impl_->path, path));
  return *info;
}

void Reader::read(const std::string& path, std::int64_t begin, std::int64_t count, DType target,
                  void* out) const {
  const DatasetInfo& info = dataset(path);
  TESSERA_CHECK(begin >= 0 && count >= 0 && begin <= info.shape.numel() - count,
                Code::invalid_argument,
                fmt::format("elements [{}, {} + {}) of {} with {} elements", begin, begin, count,
                            path, info.shape.numel()));
  if (info.dtype == target) return impl_->read_stored(info, begin, count, out);
  TESSERA_CHECK(is_floating(info.dtype) && is_floating(target), Code::io,
                fmt::format("{} in {} holds {}, which does not convert to {}", path, impl_->path,
                            to_string(info.dtype), to_string(target)));
  const std::int64_t step = kBlockBytes / static_cast<std::int64_t>(size_of(info.dtype));
  const Buffer block =
      allocate(static_cast<std::size_t>(std::min(step, count)) * size_of(info.dtype), Device{},
               Purpose::workspace);
  for (std::int64_t done = 0; done < count; done += step) {
    const std::int64_t part = std::min(step, count - done);
    impl_->read_stored(info, begin + done, part, block.data());
    convert(block.data(), info.dtype,
            static_cast<std::byte*>(out) + static_cast<std::size_t>(done) * size_of(target), target,
            static_cast<std::size_t>(part));
  }
}

std::vector<Damage> Reader::verify() const {
  return impl_->compare(impl_->checksums(0, 1));
}

std::vector<Damage> Reader::verify(Communicator& group) const {
  const Traffic::Pause pause(group.traffic());
  std::vector<std::uint64_t> sums(impl_->metadata.datasets.size());
  agreeing(group, [&] { sums = impl_->checksums(group.rank(), group.size()); });
  sum_over_ranks(group, sums);
  return impl_->compare(sums);
}

std::uint64_t Reader::weights_checksum() const {
  std::uint64_t sum = 0;
  for (const DatasetInfo& info : impl_->metadata.datasets)
    if (info.path.starts_with("parameters/")) sum += info.checksum;
  return sum;
}

}  // namespace tessera::checkpoint
