// SPDX-License-Identifier: Apache-2.0
// The started operations of one communicator, executed and completed in the order of the calls.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "tessera/comm/work.hpp"

#include "comm/group.hpp"
#include "comm/operation.hpp"

namespace tessera::comm {

class OperationQueue : public std::enable_shared_from_this<OperationQueue> {
 public:
  explicit OperationQueue(std::shared_ptr<Group> group) : group_(std::move(group)) {}
  OperationQueue(const OperationQueue&) = delete;
  OperationQueue& operator=(const OperationQueue&) = delete;

  /// Takes the operation and moves it on at once.
  Work start(std::shared_ptr<Operation> operation);
  /// A message between two ranks: outside the order of the collectives.
  Work start_message(std::shared_ptr<Operation> operation);
  bool empty() const { return pending_.empty(); }

  /// Moves pending work on; never blocks. Errors mark the group failed and are thrown.
  void progress();
  /// As progress(), for the queues of other communicators: errors wait for their own callers.
  void progress_quietly() noexcept;
  /// Blocks until everything started so far is done.
  void drain();

  bool done(std::int64_t number) const { return completed_ > number; }
  void wait(std::int64_t number);
  Group& group() { return *group_; }

 private:
  friend class MessageState;
  void advance();
  bool execute(Operation& operation);
  bool execute_message(Operation& message);
  void note_done(Operation& operation);

  std::shared_ptr<Group> group_;
  std::deque<std::shared_ptr<Operation>> pending_;
  std::size_t executed_ = 0;    ///< of pending_
  std::int64_t completed_ = 0;  ///< since the beginning
  std::int64_t started_ = 0;
  std::vector<std::shared_ptr<Operation>> messages_;
  bool advancing_ = false;
};

}  // namespace tessera::comm
