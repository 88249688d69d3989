// SPDX-License-Identifier: Apache-2.0
#include "tessera/checkpoint/snapshot.hpp"

#include <algorithm>
#include <cstring>

namespace tessera::checkpoint {
namespace {

constexpr std::int64_t kAlignment = 64;
// fill() may need memory of its own for as much as it is asked for.
constexpr std::int64_t kFillBytes = std::int64_t{4} << 20;

}  // namespace

std::vector<TensorRecord> Snapshot::prepare(const std::vector<TensorRecord>& tensors) {
  items_.clear();
  std::int64_t room = 0;
  for (const TensorRecord& tensor : tensors)
    for (const Piece& piece : tensor.pieces) {
      const auto element = static_cast<std::int64_t>(size_of(tensor.dtype));
      items_.push_back({piece, piece.elements() * element, element, nullptr});
      room += round_up(items_.back().bytes, kAlignment);
    }
  if (static_cast<std::size_t>(room) > buffer_.bytes()) {
    buffer_ = {};
    buffer_ = allocate(static_cast<std::size_t>(room), Device{}, Purpose::snapshot);
  }
  std::vector<TensorRecord> copies = tensors;
  auto item = items_.begin();
  std::byte* next = buffer_.as<std::byte>();
  for (TensorRecord& tensor : copies)
    for (Piece& piece : tensor.pieces) {
      item->target = next;
      piece.data = next;
      piece.data_stride = piece.count;
      piece.fill = nullptr;
      next += round_up(item->bytes, kAlignment);
      ++item;
    }
  return copies;
}

void Snapshot::copy_runs(const Item& item) {
  const Piece& piece = item.original;
  const auto* source = static_cast<const std::byte*>(piece.data);
  for (std::int64_t row = 0; row < piece.rows; ++row)
    std::memcpy(item.target + row * piece.count * item.element,
                source + row * piece.data_stride * item.element,
                static_cast<std::size_t>(piece.count * item.element));
}

void Snapshot::copy() {
  for (const Item& item : items_) {
    const Piece& piece = item.original;
    if (piece.data != nullptr) {
      copy_runs(item);
      continue;
    }
    const std::int64_t most = kFillBytes / item.element;
    for (std::int64_t done = 0; done < piece.elements(); done += most)
      piece.fill(done, std::min(most, piece.elements() - done), item.target + done * item.element);
  }
}

}  // namespace tessera::checkpoint
