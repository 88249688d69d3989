// SPDX-License-Identifier: Apache-2.0
// Order of starting and finishing buckets.
#include "zero/bucket_queue.hpp"

#include <algorithm>
#include <exception>
#include <string>
#include <utility>

#include "tessera/base/log.hpp"
#include "tessera/base/timeline.hpp"

namespace tessera::zero {

BucketQueue::BucketQueue(const char* work, std::vector<Bucket> plan, bool overlap, int slots,
                         Start start, Complete complete, QueueOrder order)
    : work_(work),
      plan_(std::move(plan)),
      overlap_(overlap),
      slots_(slots),
      start_(std::move(start)),
      complete_(std::move(complete)),
      order_(order) {
  int last = -1;
  for (const Bucket& bucket : plan_)
    for (const BucketPart& part : bucket.parts) last = std::max(last, part.unit);
  ready_.assign(static_cast<std::size_t>(last + 1), false);
}

BucketQueue::~BucketQueue() {
  if (std::uncaught_exceptions() > 0) return;
  try {
    for (Flight& flight : in_flight_) flight.work.wait();
  } catch (const std::exception& error) {
    log_error(std::string("while closing an optimizer with messages under way: ") + error.what());
  }
}

void BucketQueue::ready(int unit) {
  if (order_ == QueueOrder::units) {
    for (std::size_t i = 0; i < plan_.size(); ++i)
      if (plan_[i].parts.front().unit == unit) launch(i);
    return;
  }
  // Units without elements are in no bucket.
  if (static_cast<std::size_t>(unit) < ready_.size()) ready_[static_cast<std::size_t>(unit)] = true;
  while (next_ < plan_.size() && next_is_ready()) launch_next();
}

bool BucketQueue::next_is_ready() const {
  return std::ranges::all_of(plan_[next_].parts, [this](const BucketPart& part) {
    return ready_[static_cast<std::size_t>(part.unit)];
  });
}

void BucketQueue::launch_next() {
  launch(next_++);
}

void BucketQueue::launch(std::size_t bucket) {
  const ScopedSpan span(SpanKind::communication, work_);
  if (slots_ > 0 && in_flight_.size() == static_cast<std::size_t>(slots_)) complete_oldest();
  const int slot = slots_ > 0 ? static_cast<int>(launched_ % static_cast<std::size_t>(slots_)) : 0;
  in_flight_.push_back({bucket, slot, start_(plan_[bucket], slot)});
  ++launched_;
  if (!overlap_) complete_oldest();
}

void BucketQueue::complete_oldest() {
  const ScopedSpan span(SpanKind::communication, work_);
  Flight flight = std::move(in_flight_.front());
  in_flight_.pop_front();
  flight.work.wait();
  complete_(plan_[flight.bucket], flight.slot);
}

void BucketQueue::finish() {
  while (order_ == QueueOrder::plan && next_ < plan_.size()) launch_next();
  while (!in_flight_.empty()) complete_oldest();
  begin_anew();
}

void BucketQueue::abandon() {
  while (!in_flight_.empty()) complete_oldest();
  begin_anew();
}

void BucketQueue::begin_anew() {
  next_ = launched_ = 0;
  std::fill(ready_.begin(), ready_.end(), false);
}

}  // namespace tessera::zero
