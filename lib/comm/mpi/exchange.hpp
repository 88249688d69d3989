// SPDX-License-Identifier: Apache-2.0
// The collectives of the mpi transport as operations.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "comm/base_communicator.hpp"
#include "comm/mpi/messages.hpp"

namespace tessera::comm {

/// Exchanges contributions in rounds of bounded size and folds each round.
class ReduceScatterExchange : public Operation {
 public:
  ReduceScatterExchange(Group& group, const FoldOrder& order, std::vector<Part> parts, DType dtype,
                        Reduction reduction);
  bool execute() override;

 private:
  void begin_round();
  void end_round();

  Group& group_;
  const FoldOrder& order_;
  std::vector<Part> parts_;
  DType dtype_;
  Reduction reduction_;
  std::int64_t width_;
  std::int64_t chunk_;  ///< elements of a piece in one round
  std::size_t part_ = 0;
  std::int64_t at_ = 0;  ///< elements of each piece done
  bool in_round_ = false;
  std::vector<std::byte> staging_;  ///< a chunk from each peer
  Messages messages_;
};

/// Every rank's piece goes to every rank.
class AllGatherExchange : public Operation {
 public:
  AllGatherExchange(Group& group, std::vector<Part> parts, std::int64_t width);
  bool execute() override;

 private:
  Group& group_;
  std::vector<Part> parts_;
  std::int64_t width_;
  bool started_ = false;
  Messages messages_;
};

/// Few elements: everybody sends all of them to everybody and folds.
class SmallAllReduce : public Operation {
 public:
  SmallAllReduce(Group& group, const FoldOrder& order, std::byte* data, std::int64_t count,
                 DType dtype, Reduction reduction);
  bool execute() override;

 private:
  Group& group_;
  const FoldOrder& order_;
  std::byte* data_;
  std::int64_t count_;
  DType dtype_;
  Reduction reduction_;
  bool started_ = false;
  std::vector<std::byte> contributions_;
  Messages messages_;
};

/// Down a binomial tree.
class BroadcastTree : public Operation {
 public:
  BroadcastTree(Group& group, std::byte* data, std::int64_t bytes, int root);
  bool execute() override;

 private:
  enum class State { begin, receiving, sending };
  void send_to_children();

  Group& group_;
  std::byte* data_;
  std::int64_t bytes_;
  int root_;
  int place_;  ///< distance from the root
  State state_ = State::begin;
  Messages messages_;
};

class AllToAllExchange : public Operation {
 public:
  AllToAllExchange(Group& group, const std::byte* send, Pieces send_bytes, std::byte* receive,
                   Pieces receive_bytes);
  bool execute() override;

 private:
  Group& group_;
  const std::byte* send_;
  Pieces send_bytes_;
  std::byte* receive_;
  Pieces receive_bytes_;
  bool started_ = false;
  Messages messages_;
};

}  // namespace tessera::comm
