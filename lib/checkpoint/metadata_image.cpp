// SPDX-License-Identifier: Apache-2.0
// Making, sealing and copying the image.
#include "checkpoint/metadata_image.hpp"

#include <algorithm>

#include "tessera/base/atomic_file.hpp"

namespace tessera::checkpoint {
namespace {

constexpr std::int64_t kBlockBytes = std::int64_t{1} << 20;

}  // namespace

MetadataImage::MetadataImage(const Header& header, std::span<const TensorRecord> tensors,
                             const State& state)
    : offsets_(create_file(file_, header, tensors, state)) {
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto item = static_cast<std::int64_t>(size_of(tensors[i].dtype));
    data_.emplace_back(offsets_[i], offsets_[i] + tensors[i].shape.numel() * item);
  }
}

std::int64_t MetadataImage::sealed_bytes() const {
  return bytes() + trailer_bytes(data_, bytes());
}

void MetadataImage::seal(std::span<const TensorRecord> tensors,
                         std::span<const std::uint64_t> checksums) {
  seal_file(file_, tensors, checksums);
  const std::string trailer = make_trailer(file_, data_);
  file_.write(file_.size(), trailer.data(), trailer.size());
}

void MetadataImage::copy_to(int descriptor, const std::string& path) const {
  std::vector<std::byte> block;
  for (const auto& [first, last] : complement(data_, bytes()))
    for (std::int64_t at = first; at < last; at += kBlockBytes) {
      block.resize(static_cast<std::size_t>(std::min(kBlockBytes, last - at)));
      file_.read(at, block.data(), block.size());
      write_at(descriptor, block.data(), block.size(), at, path);
    }
}

}  // namespace tessera::checkpoint
