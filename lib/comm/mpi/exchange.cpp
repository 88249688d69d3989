// SPDX-License-Identifier: Apache-2.0
// The collectives of the mpi transport as operations.
#include "comm/mpi/exchange.hpp"

#include <algorithm>
#include <cstring>

#include "comm/limits.hpp"

namespace tessera::comm {
namespace {

/// Calls body(peer) for every other rank, each rank beginning with its right neighbour so that not
/// everybody turns to rank 0 first.
template <typename Body>
void for_each_peer(const Group& group, const Body& body) {
  for (int step = 1; step < group.size(); ++step) body((group.rank() + step) % group.size());
}

/// Elements of a piece from `at` on, at most `chunk`.
std::int64_t left_in(const Pieces& pieces, int rank, std::int64_t at, std::int64_t chunk) {
  return std::clamp<std::int64_t>(pieces.length(rank) - at, 0, chunk);
}

}  // namespace

ReduceScatterExchange::ReduceScatterExchange(Group& group, const FoldOrder& order,
                                             std::vector<Part> parts, DType dtype,
                                             Reduction reduction)
    : group_(group),
      order_(order),
      parts_(std::move(parts)),
      dtype_(dtype),
      reduction_(reduction),
      width_(static_cast<std::int64_t>(size_of(dtype))),
      chunk_(std::max<std::int64_t>(1, limits().exchange_bytes / (width_ * group.size()))),
      messages_(group) {
  std::int64_t longest = 0;
  for (const Part& part : parts_) longest = std::max(longest, part.pieces.longest());
  chunk_ = std::min(chunk_, longest);
  staging_.resize(static_cast<std::size_t>(chunk_ * width_ * group.size()));
}

void ReduceScatterExchange::begin_round() {
  const Part& part = parts_[part_];
  const std::int64_t mine = left_in(part.pieces, group_.rank(), at_, chunk_);
  for_each_peer(group_, [&](int peer) {
    messages_.receive(staging_.data() + peer * chunk_ * width_, mine * width_, peer);
  });
  for_each_peer(group_, [&](int peer) {
    const std::byte* piece = part.send + (part.pieces.offset(peer) + at_) * width_;
    messages_.send(piece, left_in(part.pieces, peer, at_, chunk_) * width_, peer);
  });
}

void ReduceScatterExchange::end_round() {
  const Part& part = parts_[part_];
  const int me = group_.rank();
  std::vector<const void*> sources;
  for (const int rank : order_.ranks)
    sources.push_back(rank == me ? part.send + (part.pieces.offset(me) + at_) * width_
                                 : staging_.data() + rank * chunk_ * width_);
  void* const target = part.receive + at_ * width_;
  fold({sources,
        order_.node_ends,
        {&target, 1},
        dtype_,
        dtype_,
        reduction_,
        group_.size(),
        left_in(part.pieces, me, at_, chunk_)});
  at_ += chunk_;
  if (at_ >= part.pieces.longest()) {
    at_ = 0;
    ++part_;
  }
}

bool ReduceScatterExchange::execute() {
  while (part_ < parts_.size()) {
    if (!in_round_) begin_round();
    in_round_ = true;
    if (!messages_.test()) return false;
    end_round();
    in_round_ = false;
  }
  return true;
}

AllGatherExchange::AllGatherExchange(Group& group, std::vector<Part> parts, std::int64_t width)
    : group_(group), parts_(std::move(parts)), width_(width), messages_(group) {}

bool AllGatherExchange::execute() {
  if (!started_) {
    started_ = true;
    const int me = group_.rank();
    for (const Part& part : parts_) {
      const auto place = [&](int rank) { return part.receive + part.pieces.offset(rank) * width_; };
      for_each_peer(group_, [&](int peer) {
        messages_.receive(place(peer), part.pieces.length(peer) * width_, peer);
      });
      for_each_peer(group_, [&](int peer) {
        messages_.send(part.send, part.pieces.length(me) * width_, peer);
      });
      copy_bytes(place(me), part.send, part.pieces.length(me) * width_);
    }
  }
  return messages_.test();
}

SmallAllReduce::SmallAllReduce(Group& group, const FoldOrder& order, std::byte* data,
                               std::int64_t count, DType dtype, Reduction reduction)
    : group_(group),
      order_(order),
      data_(data),
      count_(count),
      dtype_(dtype),
      reduction_(reduction),
      messages_(group) {}

bool SmallAllReduce::execute() {
  const std::int64_t bytes = count_ * static_cast<std::int64_t>(size_of(dtype_));
  if (!started_) {
    started_ = true;
    contributions_.resize(static_cast<std::size_t>(bytes * group_.size()));
    for_each_peer(group_, [&](int peer) {
      messages_.receive(contributions_.data() + peer * bytes, bytes, peer);
    });
    for_each_peer(group_, [&](int peer) { messages_.send(data_, bytes, peer); });
  }
  if (!messages_.test()) return false;
  std::vector<const void*> sources;
  for (const int rank : order_.ranks)
    sources.push_back(rank == group_.rank() ? data_ : contributions_.data() + rank * bytes);
  void* const target = data_;
  fold(
      {sources, order_.node_ends, {&target, 1}, dtype_, dtype_, reduction_, group_.size(), count_});
  return true;
}

BroadcastTree::BroadcastTree(Group& group, std::byte* data, std::int64_t bytes, int root)
    : group_(group),
      data_(data),
      bytes_(bytes),
      root_(root),
      place_((group.rank() - root + group.size()) % group.size()),
      messages_(group) {}

void BroadcastTree::send_to_children() {
  // The lowest set bit of a place is the distance to its parent; children are at smaller distances.
  int reach = 1;
  while (reach < group_.size() && (place_ & reach) == 0) reach <<= 1;
  for (int step = reach >> 1; step > 0; step >>= 1)
    if (place_ + step < group_.size())
      messages_.send(data_, bytes_, (place_ + step + root_) % group_.size());
}

bool BroadcastTree::execute() {
  if (state_ == State::begin) {
    state_ = State::receiving;
    const int parent = place_ & (place_ - 1);
    if (place_ != 0) messages_.receive(data_, bytes_, (parent + root_) % group_.size());
  }
  if (!messages_.test()) return false;
  if (state_ == State::receiving) {
    state_ = State::sending;
    send_to_children();
  }
  return messages_.test();
}

AllToAllExchange::AllToAllExchange(Group& group, const std::byte* send, Pieces send_bytes,
                                   std::byte* receive, Pieces receive_bytes)
    : group_(group),
      send_(send),
      send_bytes_(std::move(send_bytes)),
      receive_(receive),
      receive_bytes_(std::move(receive_bytes)),
      messages_(group) {}

bool AllToAllExchange::execute() {
  if (!started_) {
    started_ = true;
    for_each_peer(group_, [&](int peer) {
      messages_.receive(receive_ + receive_bytes_.offset(peer), receive_bytes_.length(peer), peer);
    });
    for_each_peer(group_, [&](int peer) {
      messages_.send(send_ + send_bytes_.offset(peer), send_bytes_.length(peer), peer);
    });
    const int me = group_.rank();
    copy_bytes(receive_ + receive_bytes_.offset(me), send_ + send_bytes_.offset(me),
               send_bytes_.length(me));
  }
  return messages_.test();
}

}  // namespace tessera::comm
