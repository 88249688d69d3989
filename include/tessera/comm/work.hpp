// SPDX-License-Identifier: Apache-2.0
// A started operation.
#pragma once

#include <memory>

namespace tessera {

/// A cheap handle; default-constructed or finished work is done. Destroying it does not wait; the
/// communicator finishes pending work in order.
class Work {
 public:
  class State {
   public:
    virtual ~State() = default;
    /// Moves on without blocking; true when done.
    virtual bool test() = 0;
    virtual void wait() = 0;
  };

  Work() = default;
  explicit Work(std::shared_ptr<State> state) : state_(std::move(state)) {}

  bool test() {
    if (state_ && state_->test()) state_.reset();
    return !state_;
  }
  /// Host operations: blocks until done. Device operations: the stream of the call waits, the host
  /// does not.
  void wait() {
    if (state_) state_->wait();
    state_.reset();
  }

 private:
  std::shared_ptr<State> state_;
};

}  // namespace tessera
