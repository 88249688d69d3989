// SPDX-License-Identifier: Apache-2.0
// The collectives of the hybrid transport as operations, in rounds of bounded size.
#include "comm/hybrid/two_level.hpp"

#include <algorithm>
#include <cstring>

#include "comm/limits.hpp"

namespace tessera::comm {
namespace {

std::int64_t chunk_for_scatter(const SharedNode& node, const NodePlan& plan, std::int64_t width,
                               std::int64_t wide_width) {
  const auto ranks = static_cast<std::int64_t>(plan.index_of.size());
  const std::int64_t shown = node.staging_bytes() / (ranks * width);
  const std::int64_t sent = limits().exchange_bytes / (2 * ranks * wide_width);
  return std::max<std::int64_t>(1, std::min(shown, sent));
}

}  // namespace

TwoLevelReduceScatter::TwoLevelReduceScatter(Group& group, SharedNode& node, const NodePlan& plan,
                                             std::vector<Part> parts, DType dtype,
                                             Reduction reduction)
    : group_(group),
      node_(node),
      plan_(plan),
      parts_(std::move(parts)),
      dtype_(dtype),
      wide_(accumulator_of(dtype)),
      reduction_(reduction),
      width_(static_cast<std::int64_t>(size_of(dtype))),
      wide_width_(static_cast<std::int64_t>(size_of(wide_))),
      chunk_(chunk_for_scatter(node, plan, width_, wide_width_)),
      steps_(steps_of(parts_, chunk_)),
      number_(node.new_operation()),
      clients_(plan.clients(group.rank())),
      local_end_{node.size()},
      nodes_end_{plan.nodes()},
      outgoing_(static_cast<std::size_t>(chunk_ * wide_width_) * clients_.size()),
      partials_(static_cast<std::size_t>(chunk_ * wide_width_ * plan.nodes())),
      messages_(group) {}

void TwoLevelReduceScatter::announce() {
  Slot* slot = node_.slot_to_fill(number_);
  if (slot == nullptr) return;
  // A place without a window says that the part is shown in staging.
  slot->entries = 0;
  for (const Part& part : parts_) {
    const Pieces& pieces = part.pieces;
    const int last = group_.size() - 1;
    const std::int64_t bytes = (pieces.offset(last) + pieces.length(last)) * width_;
    const PartPlace place{node_.windows().find(part.send, bytes), pieces.stride};
    std::memcpy(slot->payload + slot->entries++ * sizeof place, &place, sizeof place);
  }
  node_.announce(number_);
  announced_ = true;
}

std::int64_t TwoLevelReduceScatter::length(int owner) const {
  return left_in(parts_[steps_[at_].part].pieces, owner, steps_[at_].at, chunk_);
}

/// Copies what peers cannot read in place, and asks for the other nodes' partial sums.
void TwoLevelReduceScatter::show() {
  const Step step = steps_[at_];
  const Part& part = parts_[step.part];
  const Slot& own = node_.slot(node_.rank(), number_);
  const auto* places = reinterpret_cast<const PartPlace*>(own.payload);
  if (places[step.part].place.window < 0)
    for (int q = 0; q < group_.size(); ++q)
      copy_bytes(node_.staging(node_.rank()) + q * chunk_ * width_,
                 part.send + (part.pieces.offset(q) + step.at) * width_, length(q) * width_);
  for (int n = 0; n < plan_.nodes(); ++n)
    if (n != plan_.node)
      messages_.receive(partials_.data() + n * chunk_ * wide_width_,
                        length(group_.rank()) * wide_width_, plan_.worker(n, group_.rank()));
  node_.announce_filled();
}

const std::byte* TwoLevelReduceScatter::shown_by(int local, int owner) const {
  const Step step = steps_[at_];
  const Pieces& pieces = parts_[step.part].pieces;
  const auto* places = reinterpret_cast<const PartPlace*>(node_.slot(local, number_).payload);
  const PartPlace& theirs = places[step.part];
  if (theirs.place.window < 0) return node_.staging(local) + owner * chunk_ * width_;
  const std::int64_t offset = pieces.bounds.empty() ? owner * theirs.stride : pieces.offset(owner);
  return node_.windows().at(theirs.place, local) + (offset + step.at) * width_;
}

/// This node's partial sum of a chunk of `owner`'s piece.
void TwoLevelReduceScatter::fold_node(int owner, std::byte* target) {
  std::vector<const void*> sources;
  for (int local = 0; local < node_.size(); ++local) sources.push_back(shown_by(local, owner));
  void* const to = target;
  fold({sources, local_end_, {&to, 1}, dtype_, wide_, reduction_, 0, length(owner)});
}

void TwoLevelReduceScatter::fold_for_clients() {
  for (std::size_t i = 0; i < clients_.size(); ++i) {
    std::byte* partial = outgoing_.data() + static_cast<std::int64_t>(i) * chunk_ * wide_width_;
    fold_node(clients_[i], partial);
    messages_.send(partial, length(clients_[i]) * wide_width_, clients_[i]);
  }
  fold_node(group_.rank(), partials_.data() + plan_.node * chunk_ * wide_width_);
}

void TwoLevelReduceScatter::fold_partials() {
  std::vector<const void*> sources;
  for (int n = 0; n < plan_.nodes(); ++n)
    sources.push_back(partials_.data() + n * chunk_ * wide_width_);
  void* const target = parts_[steps_[at_].part].receive + steps_[at_].at * width_;
  fold({sources,
        nodes_end_,
        {&target, 1},
        wide_,
        dtype_,
        reduction_,
        group_.size(),
        length(group_.rank())});
}

bool TwoLevelReduceScatter::execute() {
  if (!announced_) announce();
  if (!announced_ || !node_.all_announced(number_)) return false;
  while (at_ < steps_.size()) {
    if (state_ == State::begin) {
      if (!node_.staging_is_free()) return false;
      show();
      state_ = State::shown;
    }
    if (state_ == State::shown) {
      if (!node_.all_filled()) return false;
      fold_for_clients();
      node_.finish_round();
      state_ = State::exchanging;
    }
    if (!messages_.test()) return false;
    fold_partials();
    state_ = State::begin;
    ++at_;
  }
  last_round_ = node_.round();
  node_.count_executed();
  return true;
}

/// A peer whose message is due may itself wait for somebody: only announcements tell who is here.
std::vector<int> TwoLevelReduceScatter::missing() const {
  std::vector<int> late;
  for (const int index : node_.not_announced(number_))
    late.push_back(plan_.local_ranks()[static_cast<std::size_t>(index)]);
  return late;
}

TwoLevelAllGather::TwoLevelAllGather(Group& group, SharedNode& node, const NodePlan& plan,
                                     int most_clients, std::vector<Part> parts, DType dtype)
    : group_(group),
      node_(node),
      plan_(plan),
      parts_(std::move(parts)),
      width_(static_cast<std::int64_t>(size_of(dtype))),
      chunk_(std::max<std::int64_t>(1, node.staging_bytes() / ((1 + most_clients) * width_))),
      steps_(steps_of(parts_, chunk_)),
      clients_(plan.clients(group.rank())),
      messages_(group) {}

std::int64_t TwoLevelAllGather::bytes_of(int owner) const {
  return left_in(parts_[steps_[at_].part].pieces, owner, steps_[at_].at, chunk_) * width_;
}

void TwoLevelAllGather::exchange() {
  const Part& part = parts_[steps_[at_].part];
  const std::byte* own = part.send + steps_[at_].at * width_;
  std::byte* staging = node_.staging(node_.rank());
  const int me = group_.rank();
  for (std::size_t i = 0; i < clients_.size(); ++i)
    messages_.receive(staging + static_cast<std::int64_t>(i + 1) * chunk_ * width_,
                      bytes_of(clients_[i]), clients_[i]);
  for (int n = 0; n < plan_.nodes(); ++n)
    if (n != plan_.node) messages_.send(own, bytes_of(me), plan_.worker(n, me));
  copy_bytes(staging, own, bytes_of(me));
  copy_bytes(part.receive + (part.pieces.offset(me) + steps_[at_].at) * width_, own, bytes_of(me));
}

void TwoLevelAllGather::collect() {
  const Part& part = parts_[steps_[at_].part];
  const auto take = [&](int owner, int local, std::int64_t place) {
    copy_bytes(part.receive + (part.pieces.offset(owner) + steps_[at_].at) * width_,
               node_.staging(local) + place * chunk_ * width_, bytes_of(owner));
  };
  for (int local = 0; local < node_.size(); ++local) {
    const int worker = plan_.local_ranks()[static_cast<std::size_t>(local)];
    if (worker != group_.rank()) take(worker, local, 0);
    std::int64_t place = 1;
    for (const int owner : plan_.clients(worker)) take(owner, local, place++);
  }
}

bool TwoLevelAllGather::execute() {
  while (at_ < steps_.size()) {
    if (state_ == State::begin) {
      if (!node_.staging_is_free()) return false;
      exchange();
      state_ = State::receiving;
    }
    if (state_ == State::receiving) {
      if (!messages_.test()) return false;
      node_.announce_filled();
      state_ = State::filled;
    }
    if (!node_.all_filled()) return false;
    collect();
    node_.finish_round();
    state_ = State::begin;
    ++at_;
  }
  return true;
}

}  // namespace tessera::comm
