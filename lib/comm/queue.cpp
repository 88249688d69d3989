// SPDX-License-Identifier: Apache-2.0
// The started operations of one communicator, executed and completed in the order of the calls.
#include "comm/queue.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

namespace tessera::comm {
namespace {

/// What a Work of a queued operation holds.
class QueuedState : public Work::State {
 public:
  QueuedState(std::shared_ptr<OperationQueue> queue, std::int64_t number)
      : queue_(std::move(queue)), number_(number) {}
  bool test() override {
    if (!queue_->done(number_)) queue_->progress();
    return queue_->done(number_);
  }
  void wait() override { queue_->wait(number_); }

 private:
  std::shared_ptr<OperationQueue> queue_;
  std::int64_t number_;
};

}  // namespace

/// What a Work of a message holds.
class MessageState : public Work::State {
 public:
  MessageState(std::shared_ptr<OperationQueue> queue, std::shared_ptr<Operation> message)
      : queue_(std::move(queue)), message_(std::move(message)) {}
  bool test() override { return message_->execute(); }
  void wait() override {
    queue_->group().await([this] { return message_->execute(); },
                          {[this] { return message_->signature.describe(); },
                           [this] { return message_->missing(); }});
  }

 private:
  std::shared_ptr<OperationQueue> queue_;
  std::shared_ptr<Operation> message_;
};

std::string Signature::describe() const {
  std::string text = operation;
  if (reduction >= 0) text += fmt::format(" ({})", to_string(static_cast<Reduction>(reduction)));
  if (count >= 0) text += fmt::format(" of {} {}", count, to_string(dtype));
  if (root >= 0) text += fmt::format(" with rank {}", root);
  return text;
}

Work OperationQueue::start(std::shared_ptr<Operation> operation) {
  if (!operation) return {};
  pending_.push_back(std::move(operation));
  const std::int64_t number = started_++;
  progress();
  if (done(number)) return {};
  return Work(std::make_shared<QueuedState>(shared_from_this(), number));
}

Work OperationQueue::start_message(std::shared_ptr<Operation> operation) {
  if (operation->execute()) return {};
  messages_.push_back(operation);
  return Work(std::make_shared<MessageState>(shared_from_this(), std::move(operation)));
}

void OperationQueue::advance() {
  while (executed_ < pending_.size() && pending_[executed_]->execute()) ++executed_;
  while (executed_ > 0 && pending_.front()->complete()) {
    pending_.pop_front();
    --executed_;
    ++completed_;
  }
  if (!messages_.empty()) std::erase_if(messages_, [](const auto& m) { return m->execute(); });
}

void OperationQueue::progress() {
  if (advancing_ || (pending_.empty() && messages_.empty())) return;
  group_->check_usable(pending_.empty() ? "progress" : pending_.front()->signature.operation);
  advancing_ = true;
  try {
    advance();
  } catch (const Error& error) {
    advancing_ = false;
    group_->mark_failed(error.code(), error.what());
    throw;
  }
  advancing_ = false;
}

void OperationQueue::progress_quietly() noexcept {
  if (group_->failed() || group_->closed()) return;
  try {
    progress();
  } catch (const std::exception&) {
    // Kept by mark_failed; the next call on that communicator throws it.
  }
}

void OperationQueue::wait(std::int64_t number) {
  if (done(number)) return;
  const auto ready = [&] {
    progress();
    return done(number);
  };
  group_->await(ready, {[this] { return pending_.front()->signature.describe(); },
                        [this] { return pending_.front()->missing(); }});
}

void OperationQueue::drain() {
  wait(started_ - 1);
  group_->await(
      [&] {
        progress();
        return messages_.empty();
      },
      {[this] { return messages_.front()->signature.describe(); },
       [this] { return messages_.front()->missing(); }});
}

}  // namespace tessera::comm
