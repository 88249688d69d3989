// SPDX-License-Identifier: Apache-2.0
// How the ranks of one node meet: counters and announcements in shared memory.
#include "comm/shm/shared_node.hpp"

#include <algorithm>
#include <sched.h>

#include "comm/limits.hpp"

namespace tessera::comm {
namespace {

std::uint64_t load(const std::uint64_t& word) {
  return std::atomic_ref<std::uint64_t>(const_cast<std::uint64_t&>(word))
      .load(std::memory_order_acquire);
}

void store(std::uint64_t& word, std::uint64_t value) {
  std::atomic_ref<std::uint64_t>(word).store(value, std::memory_order_release);
}

}  // namespace

/// The control memory of one rank. Each counter has a cache line, written by its owner only.
struct SharedNode::Block {
  alignas(64) std::uint64_t core;  ///< where the rank runs, plus one
  alignas(64) std::uint64_t executed;
  alignas(64) std::uint64_t filled;  ///< staging rounds
  alignas(64) std::uint64_t drained;
  alignas(64) Slot slots[kRing];
  // Two halves of staging follow.
};

SharedNode::SharedNode(std::shared_ptr<Group> node)
    : group_(std::move(node)),
      windows_(std::make_shared<WindowTable>(*group_)),
      staging_bytes_(limits().staging_bytes) {}

std::unique_ptr<SharedNode> SharedNode::create(std::shared_ptr<Group> node) {
  std::unique_ptr<SharedNode> shared(new SharedNode(std::move(node)));
  const auto bytes = static_cast<std::int64_t>(sizeof(Block)) + 2 * shared->staging_bytes_;
  const std::optional<int> window = shared->windows_->acquire(bytes);
  if (!window) return nullptr;
  for (int r = 0; r < shared->size(); ++r)
    shared->blocks_.push_back(reinterpret_cast<Block*>(shared->windows_->base(*window, r)));
  // Nobody may announce before all blocks are zero.
  shared->group_->barrier();
  return shared;
}

template <typename Field>
bool SharedNode::all_at_least(Field field, std::int64_t value) const {
  for (const Block* peer : blocks_)
    if (load(peer->*field) < static_cast<std::uint64_t>(value)) return false;
  return true;
}

template <typename Field>
std::vector<int> SharedNode::below(Field field, std::int64_t value) const {
  std::vector<int> ranks;
  for (int r = 0; r < size(); ++r)
    if (load(block(r).*field) < static_cast<std::uint64_t>(value)) ranks.push_back(r);
  return ranks;
}

Slot* SharedNode::slot_to_fill(std::int64_t number) {
  if (number != announced_) return nullptr;
  if (number >= kRing && executed_by_all_ < number - kRing + 1 && !all_executed(number - kRing))
    return nullptr;
  return &block(rank()).slots[number % kRing];
}

void SharedNode::announce(std::int64_t number) {
  store(block(rank()).slots[number % kRing].ready, static_cast<std::uint64_t>(number) + 1);
  announced_ = number + 1;
}

bool SharedNode::all_announced(std::int64_t number) {
  for (const Block* peer : blocks_)
    if (load(peer->slots[number % kRing].ready) != static_cast<std::uint64_t>(number) + 1)
      return false;
  return true;
}

const Slot& SharedNode::slot(int rank, std::int64_t number) const {
  return block(rank).slots[number % kRing];
}

void SharedNode::count_executed() {
  store(block(rank()).executed, static_cast<std::uint64_t>(++executed_));
}

bool SharedNode::all_executed(std::int64_t number) {
  if (executed_by_all_ > number) return true;
  if (!all_at_least(&Block::executed, number + 1)) return false;
  executed_by_all_ = number + 1;
  return true;
}

std::byte* SharedNode::staging(int rank) const {
  auto* first = reinterpret_cast<std::byte*>(blocks_[static_cast<std::size_t>(rank)] + 1);
  return first + (round_ % 2) * staging_bytes_;
}

bool SharedNode::staging_is_free() {
  return round_ < 2 || all_at_least(&Block::drained, round_ - 1);
}

void SharedNode::announce_filled() {
  store(block(rank()).filled, static_cast<std::uint64_t>(round_) + 1);
}

bool SharedNode::all_filled() {
  return all_at_least(&Block::filled, round_ + 1);
}

void SharedNode::finish_round() {
  store(block(rank()).drained, static_cast<std::uint64_t>(++round_));
}

bool SharedNode::shares_core() {
  const int core = sched_getcpu();
  // Written only when it changes: otherwise peers read it from their own caches.
  if (core != core_) store(block(rank()).core, static_cast<std::uint64_t>(core) + 1);
  core_ = core;
  for (int r = 0; r < size(); ++r)
    if (r != rank() && load(block(r).core) == static_cast<std::uint64_t>(core) + 1) return true;
  return false;
}

bool SharedNode::all_drained(std::int64_t rounds) {
  return all_at_least(&Block::drained, rounds);
}

std::vector<int> SharedNode::not_announced(std::int64_t number) const {
  std::vector<int> ranks;
  for (int r = 0; r < size(); ++r)
    if (load(slot(r, number).ready) != static_cast<std::uint64_t>(number) + 1) ranks.push_back(r);
  return ranks;
}

std::vector<int> SharedNode::not_executed(std::int64_t number) const {
  return below(&Block::executed, number + 1);
}

std::vector<int> SharedNode::not_filled() const {
  return below(&Block::filled, round_ + 1);
}

}  // namespace tessera::comm
