// SPDX-License-Identifier: Apache-2.0
// The collectives of the shm transport as operations.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/base_communicator.hpp"
#include "comm/shm/shared_node.hpp"
#include "comm/shm/staged.hpp"

namespace tessera::comm {

/// Announce, wait for all, do this rank's part, wait until the peers have done theirs.
class SharedOperation : public Operation {
 public:
  explicit SharedOperation(SharedNode& node) : node_(node), number_(node.new_operation()) {}
  bool execute() final;
  bool complete() override { return staged_ || node_.all_executed(number_); }
  std::vector<int> missing() const override;
  /// Tries to announce; execute() does it later when the ring is full.
  void announce();

 protected:
  virtual void fill(Slot& slot) = 0;
  /// All memory is in windows: this rank's part at once.
  virtual void run_direct() = 0;
  /// Some memory is not: what moves it through staging.
  virtual StagedRounds stage() = 0;

  const PartPlace* parts_of(int rank) const {
    return reinterpret_cast<const PartPlace*>(node_.slot(rank, number_).payload);
  }
  /// Writes where a part lies; the slot is direct while all parts are.
  void add_part(Slot& slot, const void* data, std::int64_t bytes, std::int64_t stride);

  SharedNode& node_;
  const std::int64_t number_;

 private:
  bool all_direct() const;

  bool announced_ = false;
  bool staged_ = false;
  StagedRounds rounds_;
};

/// Each rank folds its slice from everybody and writes it to everybody.
class SharedAllReduce : public SharedOperation {
 public:
  SharedAllReduce(SharedNode& node, const FoldOrder& order, std::byte* data, std::int64_t count,
                  DType dtype, Reduction reduction);

 protected:
  void fill(Slot& slot) override;
  void run_direct() override;
  StagedRounds stage() override;

 private:
  const FoldOrder& order_;
  std::byte* data_;
  std::int64_t count_;
  DType dtype_;
  Reduction reduction_;
  Pieces slices_;
  StagedCall scatter_;
  StagedCall gather_;
};

class SharedReduceScatter : public SharedOperation {
 public:
  SharedReduceScatter(SharedNode& node, const FoldOrder& order, std::vector<Part> parts,
                      DType dtype, Reduction reduction);

 protected:
  void fill(Slot& slot) override;
  void run_direct() override;
  StagedRounds stage() override { return staged_reduce_scatter(call_); }

 private:
  StagedCall call_;
  std::int64_t width_;
};

class SharedAllGather : public SharedOperation {
 public:
  SharedAllGather(SharedNode& node, std::vector<Part> parts, DType dtype);

 protected:
  void fill(Slot& slot) override;
  void run_direct() override;
  StagedRounds stage() override { return staged_all_gather(call_); }

 private:
  StagedCall call_;
  std::int64_t width_;
};

class SharedBroadcast : public SharedOperation {
 public:
  SharedBroadcast(SharedNode& node, std::byte* data, std::int64_t bytes, int root)
      : SharedOperation(node), data_(data), bytes_(bytes), root_(root) {}

 protected:
  void fill(Slot& slot) override;
  void run_direct() override;
  StagedRounds stage() override { return staged_broadcast(node_, data_, bytes_, root_); }

 private:
  std::byte* data_;
  std::int64_t bytes_;
  int root_;
};

class SharedAllToAll : public SharedOperation {
 public:
  SharedAllToAll(SharedNode& node, const std::byte* send, Pieces send_bytes, std::byte* receive,
                 Pieces receive_bytes);
  /// Ranks whose starts fit a slot.
  static constexpr int kMaxRanks =
      static_cast<int>((Slot::kPayload - sizeof(PartPlace)) / sizeof(std::int64_t)) - 1;

 protected:
  void fill(Slot& slot) override;
  void run_direct() override;
  StagedRounds stage() override;

 private:
  const std::int64_t* starts_of(int rank) const {
    return reinterpret_cast<const std::int64_t*>(parts_of(rank) + 1);
  }

  const std::byte* send_;
  Pieces send_bytes_;
  std::byte* receive_;
  Pieces receive_bytes_;
};

}  // namespace tessera::comm
