// SPDX-License-Identifier: Apache-2.0
// The ranks of one communicator: MPI handles, names, waiting with a deadline, small host exchanges.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tessera/base/timeline.hpp"
#include "tessera/comm/node_map.hpp"
#include "tessera/comm/runtime.hpp"

#include "comm/mpi_call.hpp"

namespace tessera::comm {

class BaseCommunicator;

/// What the communicators of one Runtime share.
struct Environment {
  CommOptions options;
  int local_size = 1;
  bool oversubscribed = false;                   ///< more ranks than cores on this node
  bool broken = false;                           ///< a group failed: peers may never answer again
  std::vector<BaseCommunicator*> communicators;  ///< alive, in the order they were made
  /// Close what is left of communicators that an error unwound.
  std::vector<std::function<void()>> unwound;

  /// Moves the pending work of every communicator on, so that waiting for one never starves
  /// another.
  void progress_all();

 private:
  bool progressing_ = false;
};

/// Says what a rank waits for when it has waited too long.
struct Waiting {
  std::function<std::string()> describe;
  /// Ranks known not to have arrived; empty when the transport cannot tell, then they are asked.
  std::function<std::vector<int>()> missing = nullptr;
};

class Group {
 public:
  Group(std::shared_ptr<Environment> environment, OwnedComm control, OwnedComm data,
        std::string name, NodeMap nodes, NodeMap real_nodes);

  int rank() const { return rank_; }
  int size() const { return size_; }
  const std::string& name() const { return name_; }
  /// The node map of the fold.
  const NodeMap& nodes() const { return nodes_; }
  /// Ranks that really share memory.
  const NodeMap& real_nodes() const { return real_nodes_; }
  MPI_Comm control() const { return control_.get(); }
  MPI_Comm data() const { return data_.get(); }
  Environment& environment() const { return *environment_; }
  const std::shared_ptr<Environment>& shared_environment() const { return environment_; }
  double timeout() const { return environment_->options.timeout_seconds; }

  /// Blocks until ready() is true. Throws timeout naming who is missing, and marks the group
  /// failed.
  template <typename Ready>
  void await(Ready&& ready, const Waiting& waiting);
  void await(MPI_Request& request, const Waiting& waiting);

  /// `bytes` bytes from every rank, in rank order. Collective.
  std::vector<std::byte> all_gather_fixed(const void* data, std::size_t bytes, const char* what);
  std::vector<std::string> all_gather_text(const std::string& text);
  std::string broadcast_text(const std::string& text, int root);
  void barrier();

  /// Throws peer_failed after a failure, invalid_argument after close.
  void check_usable(const char* operation) const;
  /// Later calls throw peer_failed. Peers that wait are told, and throw the same.
  void mark_failed(Code code, const std::string& reason);
  /// Answers peers that ask who is here, and hears of failures (thrown).
  void serve_peers();
  bool failed() const { return !failure_.empty(); }
  /// Frees the MPI communicators. Collective.
  void close();
  bool closed() const { return closed_; }
  /// Operations begun so far; ranks agree on it unless one is stuck.
  std::int64_t sequence = 0;

 private:
  class Patience;
  [[noreturn]] void throw_timeout(const Waiting& waiting);
  /// Takes one message of a peer; false when there is none.
  bool hear_peer();
  std::vector<int> call_roll();
  void tell(int to, int tag, const void* data, std::size_t bytes);

  std::shared_ptr<Environment> environment_;
  OwnedComm control_;
  OwnedComm data_;
  int rank_;
  int size_;
  std::string name_;
  NodeMap nodes_;
  NodeMap real_nodes_;
  std::string failure_;
  Code failure_code_ = Code::internal;
  bool closed_ = false;
  std::vector<bool> present_;  ///< ranks heard of during a roll call
};

/// Spins, then yields, then sleeps; knows the deadline.
class Group::Patience {
 public:
  explicit Patience(const Environment& environment)
      : timeout_(environment.options.timeout_seconds), eager_(!environment.oversubscribed) {}

  /// True when the deadline has passed.
  bool rest();
  /// Now and then: time for what is not urgent.
  bool has_time() const { return rests_ % 16 == 15; }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
  double timeout_;
  bool eager_;
  bool sleeps_ = false;
  int rests_ = 0;
};

inline void spin_pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

template <typename Ready>
void Group::await(Ready&& ready, const Waiting& waiting) {
  if (ready()) return;
  const ScopedSpan span(SpanKind::idle, "wait",
                        [&] { return SpanDetails{.group = name_, .label = waiting.describe()}; });
  Patience patience(*environment_);
  while (!ready()) {
    environment_->progress_all();
    if (patience.has_time()) serve_peers();
    if (patience.rest()) throw_timeout(waiting);
  }
}

}  // namespace tessera::comm
