// SPDX-License-Identifier: Apache-2.0
// Writing and checking the trailer.
#include "checkpoint/trailer.hpp"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "tessera/base/error.hpp"
#include "tessera/base/mapped_file.hpp"
#include "tessera/checkpoint/checksum.hpp"

namespace tessera::checkpoint {
namespace {

constexpr std::string_view kMagic = "TESSERA1";
constexpr std::int64_t kRangeBytes = 16;
constexpr std::int64_t kEndBytes = 24;

/// `bytes_of(range)` points to the bytes of a range of the file.
template <typename BytesOf>
std::uint64_t checksum(const std::vector<ByteRange>& ranges, BytesOf&& bytes_of) {
  std::uint64_t sum = 0;
  std::int64_t position = 0;
  const auto add = [&](const void* bytes, std::int64_t count) {
    sum += checksum_range("metadata", position, bytes, DType::uint8, count);
    position += count;
  };
  for (const ByteRange& range : ranges) add(bytes_of(range), range.second - range.first);
  for (const ByteRange& range : ranges) {
    const std::int64_t words[2] = {range.first, range.second};
    add(words, kRangeBytes);
  }
  return sum;
}

template <typename T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

/// Where HDF5 says that its part ends: a field of superblock version 2 and 3; 0 for other files.
std::int64_t end_of_hdf5(const MappedFile& file) {
  constexpr std::string_view signature = "\x89HDF\r\n\x1a\n";
  constexpr std::int64_t version_at = 8;
  constexpr std::int64_t end_at = 28;
  if (file.size() < end_at + 8) return 0;
  if (std::memcmp(file.data(), signature.data(), signature.size()) != 0) return 0;
  const auto version = load<std::uint8_t>(file.data() + version_at);
  return version == 2 || version == 3 ? load<std::int64_t>(file.data() + end_at) : 0;
}

bool has_magic(const MappedFile& file) {
  if (file.size() < kEndBytes) return false;
  const std::byte* end = file.data() + file.size();
  return std::memcmp(end - kMagic.size(), kMagic.data(), kMagic.size()) == 0;
}

}  // namespace

std::vector<ByteRange> complement(std::vector<ByteRange> data, std::int64_t size) {
  std::sort(data.begin(), data.end());
  data.emplace_back(size, size);
  std::vector<ByteRange> rest;
  std::int64_t position = 0;
  for (const auto& [begin, end] : data) {
    if (position < begin) rest.emplace_back(position, begin);
    position = std::max(position, end);
  }
  return rest;
}

std::int64_t trailer_bytes(const std::vector<ByteRange>& data, std::int64_t size) {
  return static_cast<std::int64_t>(complement(data, size).size()) * kRangeBytes + kEndBytes;
}

std::string make_trailer(const SparseFile& file, std::vector<ByteRange> data) {
  const std::vector<ByteRange> ranges = complement(std::move(data), file.size());
  std::string trailer;
  const auto add = [&](auto word) {
    trailer.append(reinterpret_cast<const char*>(&word), sizeof word);
  };
  for (const auto& [begin, end] : ranges) {
    add(begin);
    add(end);
  }
  add(static_cast<std::uint64_t>(ranges.size()));
  std::vector<std::byte> bytes;
  add(checksum(ranges, [&](const ByteRange& range) {
    bytes.resize(static_cast<std::size_t>(range.second - range.first));
    file.read(range.first, bytes.data(), bytes.size());
    return bytes.data();
  }));
  trailer += kMagic;
  return trailer;
}

bool check_trailer(const std::string& path) {
  const MappedFile file(path);
  if (!has_magic(file)) {
    // A program that rewrites the file cuts it there; a rest of the trailer is damage.
    const std::int64_t hdf5_end = end_of_hdf5(file);
    TESSERA_CHECK(hdf5_end <= 0 || file.size() <= hdf5_end, Code::io,
                  "it is truncated or its end is damaged");
    return false;
  }
  const std::byte* end = file.data() + file.size();
  const auto count = load<std::uint64_t>(end - kEndBytes);
  const auto room = static_cast<std::uint64_t>((file.size() - kEndBytes) / kRangeBytes);
  bool valid = count <= room;
  std::vector<ByteRange> ranges;
  const std::byte* table =
      end - kEndBytes - static_cast<std::int64_t>(valid ? count : 0) * kRangeBytes;
  std::int64_t position = 0;
  for (std::uint64_t i = 0; valid && i < count; ++i) {
    const auto begin = load<std::int64_t>(table + 16 * i);
    const auto stop = load<std::int64_t>(table + 16 * i + 8);
    valid = position <= begin && begin <= stop && stop <= file.size();
    position = stop;
    ranges.emplace_back(begin, stop);
  }
  // Together, for they lie all over the file, and a disk does many at once.
  for (const auto& [begin, stop] : ranges)
    if (valid) file.read_ahead(begin, stop - begin);
  const auto expected = load<std::uint64_t>(end - 16);
  const auto bytes_of = [&](const ByteRange& range) { return file.data() + range.first; };
  TESSERA_CHECK(valid && checksum(ranges, bytes_of) == expected, Code::io,
                "its metadata are damaged: their checksum does not fit");
  return true;
}

}  // namespace tessera::checkpoint
