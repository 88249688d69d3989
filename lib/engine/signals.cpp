// SPDX-License-Identifier: Apache-2.0
#include "tessera/engine/signals.hpp"

#include <atomic>
#include <ctime>
#include <unistd.h>

namespace tessera::engine {
namespace {

constexpr long kPatienceSeconds = 5;

// Lock-free atomics are what a signal handler may touch.
std::atomic<bool> stop_requested{false};
std::atomic<long> first_signal_time{0};

long monotonic_seconds() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<long>(now.tv_sec);
}

void on_signal(int) {
  const long now = monotonic_seconds();
  if (!stop_requested.exchange(true)) {
    first_signal_time = now;
  } else if (now - first_signal_time >= kPatienceSeconds) {
    _exit(1);
  }
}

}  // namespace

StopSignals::StopSignals() {
  stop_requested = false;
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGUSR1, &action, &previous_usr1_);
  sigaction(SIGTERM, &action, &previous_term_);
}

StopSignals::~StopSignals() {
  sigaction(SIGUSR1, &previous_usr1_, nullptr);
  sigaction(SIGTERM, &previous_term_, nullptr);
}

bool StopSignals::requested() const {
  return stop_requested;
}

}  // namespace tessera::engine
