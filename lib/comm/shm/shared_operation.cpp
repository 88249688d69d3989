// SPDX-License-Identifier: Apache-2.0
// The collectives of the shm transport as operations.
#include "comm/shm/shared_operation.hpp"

#include <algorithm>
#include <cstring>

namespace tessera::comm {
namespace {

std::int64_t width_of(DType dtype) {
  return static_cast<std::int64_t>(size_of(dtype));
}

/// Bytes from the first element of the first piece to the last element of the last.
std::int64_t extent(const Pieces& pieces, int ranks, std::int64_t width) {
  return (pieces.offset(ranks - 1) + pieces.length(ranks - 1)) * width;
}

}  // namespace

void SharedOperation::announce() {
  Slot* slot = node_.slot_to_fill(number_);
  if (slot == nullptr) return;
  slot->direct = 1;
  slot->entries = 0;
  fill(*slot);
  node_.announce(number_);
  announced_ = true;
}

bool SharedOperation::all_direct() const {
  for (int r = 0; r < node_.size(); ++r)
    if (node_.slot(r, number_).direct == 0) return false;
  return true;
}

bool SharedOperation::execute() {
  if (!announced_) announce();
  if (!announced_) return false;
  if (!staged_) {
    if (!node_.all_announced(number_)) return false;
    staged_ = !all_direct();
    if (staged_)
      rounds_ = stage();
    else
      run_direct();
  }
  if (staged_ && !rounds_.advance()) return false;
  node_.count_executed();
  return true;
}

std::vector<int> SharedOperation::missing() const {
  std::vector<int> late = node_.not_announced(number_);
  if (late.empty() && staged_) late = node_.not_filled();
  if (late.empty()) late = node_.not_executed(number_);
  return late;
}

void SharedOperation::add_part(Slot& slot, const void* data, std::int64_t bytes,
                               std::int64_t stride) {
  PartPlace part{node_.windows().find(data, bytes), stride};
  if (bytes == 0) part.place = {0, 0};  // never read; any window will do
  if (part.place.window < 0) slot.direct = 0;
  std::memcpy(slot.payload + slot.entries * sizeof part, &part, sizeof part);
  ++slot.entries;
}

SharedAllReduce::SharedAllReduce(SharedNode& node, const FoldOrder& order, std::byte* data,
                                 std::int64_t count, DType dtype, Reduction reduction)
    : SharedOperation(node),
      order_(order),
      data_(data),
      count_(count),
      dtype_(dtype),
      reduction_(reduction),
      slices_(slices_of(count, node.size())) {}

void SharedAllReduce::fill(Slot& slot) {
  add_part(slot, data_, count_ * width_of(dtype_), 0);
}

void SharedAllReduce::run_direct() {
  const std::int64_t offset = slices_.offset(node_.rank()) * width_of(dtype_);
  std::vector<const void*> sources;
  std::vector<void*> targets;
  for (const int rank : order_.ranks) {
    std::byte* slice = node_.windows().at(parts_of(rank)->place, rank) + offset;
    sources.push_back(slice);
    targets.push_back(slice);
  }
  fold({sources, order_.node_ends, targets, dtype_, dtype_, reduction_, node_.size(),
        slices_.length(node_.rank())});
}

StagedRounds SharedAllReduce::stage() {
  // The scatter's rounds and then the gather's, as one series.
  std::byte* own = data_ + slices_.offset(node_.rank()) * width_of(dtype_);
  scatter_ = {&node_, &order_, {{data_, own, slices_}}, dtype_, reduction_};
  gather_ = {&node_, &order_, {{own, data_, slices_}}, dtype_, reduction_};
  return staged_reduce_scatter(scatter_).then(staged_all_gather(gather_));
}

SharedReduceScatter::SharedReduceScatter(SharedNode& node, const FoldOrder& order,
                                         std::vector<Part> parts, DType dtype, Reduction reduction)
    : SharedOperation(node),
      call_{&node, &order, std::move(parts), dtype, reduction},
      width_(width_of(dtype)) {}

void SharedReduceScatter::fill(Slot& slot) {
  for (const Part& part : call_.parts)
    add_part(slot, part.send, extent(part.pieces, node_.size(), width_), part.pieces.stride);
}

void SharedReduceScatter::run_direct() {
  const int me = node_.rank();
  std::vector<const void*> sources(call_.order->ranks.size());
  for (std::size_t p = 0; p < call_.parts.size(); ++p) {
    const Part& part = call_.parts[p];
    for (std::size_t i = 0; i < sources.size(); ++i) {
      const int rank = call_.order->ranks[i];
      const PartPlace& theirs = parts_of(rank)[p];
      const std::int64_t offset =
          part.pieces.bounds.empty() ? me * theirs.stride : part.pieces.offset(me);
      sources[i] = node_.windows().at(theirs.place, rank) + offset * width_;
    }
    void* const target = part.receive;
    fold({sources,
          call_.order->node_ends,
          {&target, 1},
          call_.dtype,
          call_.dtype,
          call_.reduction,
          node_.size(),
          part.pieces.length(me)});
  }
}

SharedAllGather::SharedAllGather(SharedNode& node, std::vector<Part> parts, DType dtype)
    : SharedOperation(node),
      call_{&node, nullptr, std::move(parts), dtype, Reduction::sum},
      width_(width_of(dtype)) {}

void SharedAllGather::fill(Slot& slot) {
  for (const Part& part : call_.parts)
    add_part(slot, part.send, part.pieces.length(node_.rank()) * width_, 0);
}

void SharedAllGather::run_direct() {
  for (std::size_t p = 0; p < call_.parts.size(); ++p) {
    const Part& part = call_.parts[p];
    for (int k = 0; k < node_.size(); ++k) {
      const int q = (node_.rank() + k) % node_.size();
      copy_bytes(part.receive + part.pieces.offset(q) * width_,
                 k == 0 ? part.send : node_.windows().at(parts_of(q)[p].place, q),
                 part.pieces.length(q) * width_);
    }
  }
}

void SharedBroadcast::fill(Slot& slot) {
  if (node_.rank() == root_) add_part(slot, data_, bytes_, 0);
}

void SharedBroadcast::run_direct() {
  if (node_.rank() == root_) return;
  copy_bytes(data_, node_.windows().at(parts_of(root_)->place, root_), bytes_);
}

SharedAllToAll::SharedAllToAll(SharedNode& node, const std::byte* send, Pieces send_bytes,
                               std::byte* receive, Pieces receive_bytes)
    : SharedOperation(node),
      send_(send),
      send_bytes_(std::move(send_bytes)),
      receive_(receive),
      receive_bytes_(std::move(receive_bytes)) {}

void SharedAllToAll::fill(Slot& slot) {
  add_part(slot, send_, send_bytes_.total(node_.size()), 0);
  std::memcpy(slot.payload + sizeof(PartPlace), send_bytes_.bounds.data(),
              send_bytes_.bounds.size() * sizeof(std::int64_t));
}

void SharedAllToAll::run_direct() {
  for (int k = 0; k < node_.size(); ++k) {
    const int q = (node_.rank() + k) % node_.size();
    copy_bytes(receive_ + receive_bytes_.offset(q),
               node_.windows().at(parts_of(q)->place, q) + starts_of(q)[node_.rank()],
               receive_bytes_.length(q));
  }
}

StagedRounds SharedAllToAll::stage() {
  std::int64_t longest = 0;
  for (int from = 0; from < node_.size(); ++from)
    for (int to = 0; to < node_.size(); ++to)
      longest = std::max(longest, starts_of(from)[to + 1] - starts_of(from)[to]);
  return staged_all_to_all(node_, send_, send_bytes_, receive_, receive_bytes_, longest);
}

}  // namespace tessera::comm
