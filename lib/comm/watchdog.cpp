// SPDX-License-Identifier: Apache-2.0
// The last resort against a hang inside an MPI call that cannot be interrupted.
#include "comm/watchdog.hpp"

#include <cstdio>
#include <thread>
#include <unistd.h>

#include <fmt/format.h>

namespace tessera::comm {

Watchdog& Watchdog::instance() {
  // Never destroyed: its thread may outlive every static.
  static auto* watchdog = new Watchdog;
  return *watchdog;
}

Watchdog::Section::Section(const std::string& what, double seconds) {
  if (seconds > 0) number_ = instance().enter(what, seconds);
}

Watchdog::Section::~Section() {
  if (number_ >= 0) instance().leave(number_);
}

void Watchdog::set_rank(int rank) {
  const std::lock_guard lock(instance().mutex_);
  instance().rank_ = rank;
}

std::int64_t Watchdog::enter(const std::string& what, double seconds) {
  const std::lock_guard lock(mutex_);
  const auto length =
      std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  entries_[next_] = {what, seconds, Clock::now() + length};
  if (!running_) {
    running_ = true;
    std::thread([this] { watch(); }).detach();
  }
  changed_.notify_one();
  return next_++;
}

void Watchdog::leave(std::int64_t number) {
  const std::lock_guard lock(mutex_);
  entries_.erase(number);
}

void Watchdog::watch() {
  std::unique_lock lock(mutex_);
  while (true) {
    Clock::time_point next = Clock::now() + std::chrono::hours(1);
    for (const auto& [number, entry] : entries_) {
      if (Clock::now() >= entry.deadline) end_process(entry);
      next = std::min(next, entry.deadline);
    }
    changed_.wait_until(lock, next);
  }
}

void Watchdog::end_process(const Entry& entry) const {
  const std::string text = fmt::format(
      "error: [rank {}] still inside {} after {} s: another rank did not come, ending the "
      "process\n",
      rank_, entry.what, entry.seconds);
  std::fputs(text.c_str(), stderr);
  std::fflush(stderr);
  _exit(1);
}

}  // namespace tessera::comm
