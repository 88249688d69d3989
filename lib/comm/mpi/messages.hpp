// SPDX-License-Identifier: Apache-2.0
// Messages to and from several peers that are in flight together, in pieces that MPI's counts
// allow.
#pragma once

#include <cstdint>
#include <vector>

#include <mpi.h>

#include "comm/group.hpp"
#include "comm/operation.hpp"

namespace tessera::comm {

/// Tags on the data communicator: collectives share one, because every rank issues them in the same
/// order and MPI keeps the order of messages between two ranks.
inline constexpr int kCollectiveTag = 0;
inline constexpr int kFirstPointTag = 16;

class Messages {
 public:
  explicit Messages(Group& group, int tag = kCollectiveTag) : group_(group), tag_(tag) {}
  /// Requests that are still active are cancelled or let go: their memory may vanish now.
  ~Messages();
  Messages(const Messages&) = delete;
  Messages& operator=(const Messages&) = delete;

  /// Starts at once. Zero bytes send nothing.
  void send(const void* data, std::int64_t bytes, int to);
  void receive(void* data, std::int64_t bytes, int from);
  /// True when everything started so far is done.
  bool test();
  /// Peers from which something is still due.
  std::vector<int> missing() const;

 private:
  Group& group_;
  int tag_;
  std::vector<MPI_Request> requests_;
  std::vector<int> receives_from_;  ///< beside requests_; -1 for a send
};

/// A send or a receive between two ranks.
class PointMessage : public Operation {
 public:
  PointMessage(Group& group, int tag);
  Messages& messages() { return messages_; }
  bool execute() override { return messages_.test(); }
  std::vector<int> missing() const override;

 private:
  Messages messages_;
};

}  // namespace tessera::comm
