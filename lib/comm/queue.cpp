// SPDX-License-Identifier: Apache-2.0
// The started operations of one communicator, executed and completed in the order of the calls.
#include "comm/queue.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/timeline.hpp"

namespace tessera::comm {
namespace {

// Shorter looks at an operation found next to nothing to do: they are part of waiting.
constexpr std::int64_t kLook = 10'000;  // nanoseconds

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
  bool test() override { return queue_->execute_message(*message_); }
  void wait() override {
    queue_->group().await([this] { return queue_->execute_message(*message_); },
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
  const std::int64_t called = Timeline::recording() ? Timeline::now() : 0;
  progress();
  if (done(number)) return {};
  pending_.back()->called = called;
  return Work(std::make_shared<QueuedState>(shared_from_this(), number));
}

Work OperationQueue::start_message(std::shared_ptr<Operation> operation) {
  const std::int64_t called = Timeline::recording() ? Timeline::now() : 0;
  if (execute(*operation)) return {};
  operation->called = called;
  messages_.push_back(operation);
  return Work(std::make_shared<MessageState>(shared_from_this(), std::move(operation)));
}

// What it takes is recorded.
bool OperationQueue::execute(Operation& operation) {
  if (!Timeline::recording()) return operation.execute();
  const std::int64_t begin = Timeline::now();
  const bool done = operation.execute();
  const std::int64_t end = Timeline::now();
  const Signature& signature = operation.signature;
  if (end - begin >= kLook)
    Timeline::add({signature.operation,
                   SpanKind::communication,
                   begin,
                   end,
                   {.peer = signature.root, .bytes = signature.bytes(), .group = group_->name()}});
  return done;
}

bool OperationQueue::execute_message(Operation& message) {
  const bool done = execute(message);
  if (done) note_done(message);
  return done;
}

void OperationQueue::note_done(Operation& operation) {
  if (operation.called == 0) return;
  const Signature& signature = operation.signature;
  Timeline::add({signature.operation,
                 SpanKind::in_flight,
                 operation.called,
                 Timeline::now(),
                 {.peer = signature.root, .bytes = signature.bytes(), .group = group_->name()}});
  operation.called = 0;
}

void OperationQueue::advance() {
  while (executed_ < pending_.size() && execute(*pending_[executed_])) ++executed_;
  while (executed_ > 0 && pending_.front()->complete()) {
    note_done(*pending_.front());
    pending_.pop_front();
    --executed_;
    ++completed_;
  }
  if (!messages_.empty())
    std::erase_if(messages_, [this](const auto& m) { return execute_message(*m); });
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
