// SPDX-License-Identifier: Apache-2.0
// How the ranks of one node meet: counters and announcements in shared memory.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "comm/group.hpp"
#include "comm/shm/window.hpp"

namespace tessera::comm {

/// What a rank announces about one operation. `ready` is written last: when it equals the
/// operation's number + 1 the rest is valid. It shares a cache line with small payloads, so that a
/// small all-reduce costs one line from each peer.
struct alignas(64) Slot {
  static constexpr std::size_t kPayload = 4096 + 48;

  std::uint64_t ready;
  std::uint32_t direct;  ///< peers may use this rank's memory where it is
  std::uint32_t entries;
  std::byte payload[kPayload];
};

/// Of one part, in a slot's payload.
struct PartPlace {
  Place place;
  std::int64_t stride = 0;
};
inline constexpr std::size_t kMaxParts = Slot::kPayload / sizeof(PartPlace);

/// Operations are numbered alike on all ranks. A rank announces operation k in its slot k % ring,
/// does its part when all have announced k, and counts it as executed: from then on it does not
/// touch the peers' memory for k.
class SharedNode {
 public:
  /// Null on all ranks when shared memory is too small. `node` holds ranks of one real node.
  /// Collective.
  static std::unique_ptr<SharedNode> create(std::shared_ptr<Group> node);

  int rank() const { return group_->rank(); }
  int size() const { return group_->size(); }
  WindowTable& windows() { return *windows_; }
  const std::shared_ptr<WindowTable>& shared_windows() const { return windows_; }
  void close() { windows_->close(); }

  std::int64_t new_operation() { return created_++; }
  /// This rank's slot for operation `number`, or null while it is not its turn or peers still read
  /// what the slot held.
  Slot* slot_to_fill(std::int64_t number);
  void announce(std::int64_t number);
  bool all_announced(std::int64_t number);
  const Slot& slot(int rank, std::int64_t number) const;
  void count_executed();
  bool all_executed(std::int64_t number);

  /// Staging: rounds are numbered alike on all ranks; two halves take turns.
  std::int64_t round() const { return round_; }
  std::byte* staging(int rank) const;
  std::int64_t staging_bytes() const { return staging_bytes_; }
  bool staging_is_free();
  void announce_filled();
  bool all_filled();
  void finish_round();
  /// True when every rank has finished the first `rounds` rounds.
  bool all_drained(std::int64_t rounds);

  /// True when a peer was last seen on the core that this rank runs on.
  bool shares_core();

  std::vector<int> not_announced(std::int64_t number) const;
  std::vector<int> not_executed(std::int64_t number) const;
  std::vector<int> not_filled() const;

 private:
  static constexpr std::int64_t kRing = 16;
  struct Block;

  explicit SharedNode(std::shared_ptr<Group> node);
  Block& block(int rank) const { return *blocks_[static_cast<std::size_t>(rank)]; }
  template <typename Field>
  bool all_at_least(Field field, std::int64_t value) const;
  template <typename Field>
  std::vector<int> below(Field field, std::int64_t value) const;

  std::shared_ptr<Group> group_;
  std::shared_ptr<WindowTable> windows_;
  std::vector<Block*> blocks_;
  std::int64_t staging_bytes_;
  std::int64_t created_ = 0;
  std::int64_t announced_ = 0;
  std::int64_t executed_ = 0;
  std::int64_t executed_by_all_ = 0;  ///< last seen
  std::int64_t round_ = 0;
  int core_ = -1;
};

}  // namespace tessera::comm
