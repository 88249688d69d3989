// SPDX-License-Identifier: Apache-2.0
#include "tessera/checkpoint/snapshot.hpp"

#include <algorithm>
#include <cstring>
#include <exception>

namespace tessera::checkpoint {
namespace {

constexpr std::int64_t kAlignment = 64;
// Large pieces are copied by several threads.
constexpr std::int64_t kPartBytes = std::int64_t{4} << 20;

struct Part {
  const Piece* piece;
  std::int64_t begin;  // in the piece
  std::int64_t count;
  std::int64_t item;
  std::byte* target;  // of the part
};

void copy_part(const Part& part) {
  const Piece& piece = *part.piece;
  if (piece.data != nullptr) {
    std::memcpy(part.target, static_cast<const std::byte*>(piece.data) + part.begin * part.item,
                static_cast<std::size_t>(part.count * part.item));
    return;
  }
  const std::int64_t most = kPartBytes / part.item;
  for (std::int64_t done = 0; done < part.count; done += most)
    piece.fill(part.begin + done, std::min(most, part.count - done),
               part.target + done * part.item);
}

/// A piece that is filled stays whole: fill() wants its calls in order.
void add_parts(std::vector<Part>& parts, const Piece& piece, std::int64_t item, std::byte* target) {
  const std::int64_t step = piece.data != nullptr ? kPartBytes / item : piece.count;
  for (std::int64_t begin = 0; begin < piece.count; begin += step)
    parts.push_back(
        {&piece, begin, std::min(step, piece.count - begin), item, target + begin * item});
}

void copy_all(const std::vector<Part>& parts) {
  std::exception_ptr error;
#pragma omp parallel for schedule(dynamic)
  for (std::size_t i = 0; i < parts.size(); ++i) {
    try {
      copy_part(parts[i]);
    } catch (...) {
#pragma omp critical(tessera_snapshot_error)
      error = std::current_exception();
    }
  }
  if (error) std::rethrow_exception(error);
}

std::int64_t room_of(const Piece& piece, DType dtype) {
  return round_up(piece.count * static_cast<std::int64_t>(size_of(dtype)), kAlignment);
}

}  // namespace

std::vector<TensorRecord> Snapshot::copy(std::vector<TensorRecord> tensors) {
  std::int64_t bytes = 0;
  for (const TensorRecord& tensor : tensors)
    for (const Piece& piece : tensor.pieces) bytes += room_of(piece, tensor.dtype);
  if (static_cast<std::size_t>(bytes) > buffer_.bytes()) {
    buffer_ = {};
    buffer_ = allocate(static_cast<std::size_t>(bytes), Device{}, Purpose::snapshot);
  }
  std::vector<Part> parts;
  std::byte* next = buffer_.as<std::byte>();
  for (const TensorRecord& tensor : tensors)
    for (const Piece& piece : tensor.pieces) {
      add_parts(parts, piece, static_cast<std::int64_t>(size_of(tensor.dtype)), next);
      next += room_of(piece, tensor.dtype);
    }
  copy_all(parts);
  next = buffer_.as<std::byte>();
  for (TensorRecord& tensor : tensors)
    for (Piece& piece : tensor.pieces) {
      piece.data = next;
      piece.fill = nullptr;
      next += room_of(piece, tensor.dtype);
    }
  return tensors;
}

}  // namespace tessera::checkpoint
