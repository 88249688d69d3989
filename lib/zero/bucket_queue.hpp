// SPDX-License-Identifier: Apache-2.0
// Buckets on their way: started in one order on all ranks, finished in that order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

#include "tessera/comm/work.hpp"

#include "zero/bucket_plan.hpp"

namespace tessera::zero {

/// Buckets start in the plan's order on every rank, whatever the order in which units become ready,
/// or each as soon as its unit is, any number of times (QueueOrder::units; units are ready in the
/// same order on all ranks, and buckets have parts of one). They are completed only at points that
/// the program's order decides: never because a message happened to be early.
enum class QueueOrder : std::uint8_t { plan, units };

class BucketQueue {
 public:
  /// `slot` counts 0 … slots - 1 round and round: no two buckets under way share one.
  using Start = std::function<Work(const Bucket&, int slot)>;
  using Complete = std::function<void(const Bucket&, int slot)>;

  /// At most `slots` buckets are under way; 0: any number, and slot is always 0. `work`, static
  /// text, is what a recorded timeline calls it.
  BucketQueue(const char* work, std::vector<Bucket> plan, bool overlap, int slots, Start start,
              Complete complete, QueueOrder order = QueueOrder::plan);
  /// Waits for what is under way, except while an exception unwinds: peers may have stopped.
  ~BucketQueue();
  BucketQueue(const BucketQueue&) = delete;
  BucketQueue& operator=(const BucketQueue&) = delete;

  const std::vector<Bucket>& plan() const { return plan_; }
  /// Starts what can start now that this unit's elements are final.
  void ready(int unit);
  /// Starts the next bucket of the plan without asking for readiness.
  void launch_next();
  bool idle() const { return in_flight_.empty(); }
  /// Waits for the oldest bucket under way.
  void complete_oldest();
  /// Starts what is left in the plan's order, waits for everything, and begins anew.
  void finish();
  /// Waits for what is under way, forgets the rest, and begins anew.
  void abandon();

 private:
  struct Flight {
    std::size_t bucket;
    int slot;
    Work work;
  };
  void launch(std::size_t bucket);
  bool next_is_ready() const;
  void begin_anew();

  const char* work_;
  std::vector<Bucket> plan_;
  bool overlap_;
  int slots_;
  Start start_;
  Complete complete_;
  QueueOrder order_;
  std::vector<bool> ready_;
  std::size_t next_ = 0;  // in the plan's order
  std::size_t launched_ = 0;
  std::deque<Flight> in_flight_;
};

}  // namespace tessera::zero
