// SPDX-License-Identifier: Apache-2.0
// Small collectives of the shm transport: the data travels in the announcement.
#include "comm/shm/inline_operation.hpp"

#include <algorithm>
#include <cstring>

#include "comm/limits.hpp"

namespace tessera::comm {
namespace {

std::int64_t width_of(DType dtype) {
  return static_cast<std::int64_t>(size_of(dtype));
}

void copy_small(std::byte* target, const std::byte* source, std::int64_t bytes) {
  if (bytes > 0 && target != source) std::memcpy(target, source, static_cast<std::size_t>(bytes));
}

}  // namespace

std::int64_t inline_bytes() {
  return std::min<std::int64_t>(Slot::kPayload, limits().inline_bytes);
}

bool InlineOperation::execute() {
  if (!announced_) {
    Slot* slot = node_->slot_to_fill(number_);
    if (slot == nullptr) return false;
    fill(slot->payload);
    node_->announce(number_);
    announced_ = true;
  }
  if (!node_->all_announced(number_)) return false;
  use();
  node_->count_executed();
  return true;
}

void InlineOperation::fold_payloads(const FoldOrder& order, std::int64_t offset, void* target,
                                    std::int64_t count, DType dtype, Reduction reduction) const {
  // Few ranks keep their sources on the stack: this path is all about latency.
  constexpr std::size_t kFew = 16;
  const void* few[kFew];
  std::vector<const void*> many;
  const std::size_t n = order.ranks.size();
  if (n > kFew) many.resize(n);
  const void** sources = n > kFew ? many.data() : few;
  for (std::size_t i = 0; i < n; ++i) sources[i] = payload_of(order.ranks[i]) + offset;
  fold(
      {{sources, n}, order.node_ends, {&target, 1}, dtype, dtype, reduction, node_->size(), count});
}

void InlineAllReduce::fill(std::byte* payload) {
  copy_small(payload, data_, count_ * width_of(dtype_));
}

bool InlineReduceScatter::fits(const std::vector<Part>& parts, int ranks, DType dtype) {
  std::int64_t elements = 0;
  for (const Part& part : parts) elements += part.pieces.total(ranks);
  return elements * width_of(dtype) <= inline_bytes();
}

void InlineReduceScatter::fill(std::byte* payload) {
  const std::int64_t width = width_of(dtype_);
  for (const Part& part : parts_)
    for (int q = 0; q < node_->size(); ++q) {
      const std::int64_t bytes = part.pieces.length(q) * width;
      copy_small(payload, part.send + part.pieces.offset(q) * width, bytes);
      payload += bytes;
    }
}

void InlineReduceScatter::use() {
  const std::int64_t width = width_of(dtype_);
  const int me = node_->rank();
  std::int64_t at = 0;
  for (const Part& part : parts_) {
    std::int64_t before = 0;
    for (int q = 0; q < me; ++q) before += part.pieces.length(q);
    fold_payloads(*order_, (at + before) * width, part.receive, part.pieces.length(me), dtype_,
                  reduction_);
    at += part.pieces.total(node_->size());
  }
}

bool InlineAllGather::fits(const std::vector<Part>& parts, DType dtype) {
  // All ranks must decide alike, so the longest contribution counts.
  std::int64_t elements = 0;
  for (const Part& part : parts) elements += part.pieces.longest();
  return elements * width_of(dtype) <= inline_bytes();
}

void InlineAllGather::fill(std::byte* payload) {
  for (const Part& part : parts_) {
    const std::int64_t bytes = part.pieces.length(node_->rank()) * width_;
    copy_small(payload, part.send, bytes);
    payload += bytes;
  }
}

void InlineAllGather::use() {
  for (int q = 0; q < node_->size(); ++q) {
    const std::byte* payload = payload_of(q);
    for (const Part& part : parts_) {
      const std::int64_t bytes = part.pieces.length(q) * width_;
      std::byte* place = part.receive + part.pieces.offset(q) * width_;
      if (q != node_->rank() || place != part.send) copy_small(place, payload, bytes);
      payload += bytes;
    }
  }
}

}  // namespace tessera::comm
