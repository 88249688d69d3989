// SPDX-License-Identifier: Apache-2.0
// Counters of what one rank sent.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace tessera {

/// Payload of this rank by operation: "all_reduce", "reduce_scatter", "all_gather", "broadcast",
/// "all_to_all", "send", "scalars". A byte counts once for each peer it leaves for or that reads it
/// in place. Messages: one for each peer a piece goes to; an all-reduce is a reduce-scatter and an
/// all-gather of slices.
class Traffic {
 public:
  struct Count {
    std::int64_t bytes = 0;
    std::int64_t messages = 0;
  };

  void add(const std::string& operation, std::int64_t bytes, std::int64_t messages) {
    if (paused_ > 0) return;
    Count& count = counts_[operation];
    count.bytes += bytes;
    count.messages += messages;
  }
  const std::map<std::string, Count>& counts() const { return counts_; }
  Count count(const std::string& operation) const {
    const auto found = counts_.find(operation);
    return found == counts_.end() ? Count{} : found->second;
  }
  void reset() { counts_.clear(); }

  /// While one lives nothing is counted: agreement, checking, saving and evaluation are not
  /// training traffic.
  class Pause {
   public:
    explicit Pause(Traffic& traffic) : traffic_(traffic) { ++traffic_.paused_; }
    ~Pause() { --traffic_.paused_; }
    Pause(const Pause&) = delete;
    Pause& operator=(const Pause&) = delete;

   private:
    Traffic& traffic_;
  };

 private:
  std::map<std::string, Count> counts_;
  int paused_ = 0;
};

}  // namespace tessera
