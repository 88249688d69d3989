// SPDX-License-Identifier: Apache-2.0
#include "tessera/engine/signals.hpp"

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <ctime>
#include <unistd.h>

#include "tessera/base/error.hpp"

namespace tessera::engine {
namespace {

struct Handled {
  int signal;
  struct sigaction previous;
};

// Lock-free atomics are what a signal handler may touch; the rest is written before a handler is
// there to read it.
std::array<Handled, 2> handled = {{{SIGUSR1, {}}, {SIGTERM, {}}}};
std::atomic<bool> alive{false};
std::atomic<bool> stop_requested{false};
std::atomic<std::int64_t> first_signal_time{0};
std::atomic<std::int64_t> patience{0};

std::int64_t monotonic_nanoseconds() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

void call_previous(int signal, siginfo_t* info, void* context) {
  for (const Handled& one : handled) {
    if (one.signal != signal) continue;
    if ((one.previous.sa_flags & SA_SIGINFO) != 0) {
      one.previous.sa_sigaction(signal, info, context);
    } else if (one.previous.sa_handler != SIG_IGN && one.previous.sa_handler != SIG_DFL) {
      one.previous.sa_handler(signal);
    }
  }
}

// True if the process has to end.
bool note_signal() {
  const std::int64_t now = monotonic_nanoseconds();
  std::int64_t none = 0;
  // The time before the flag: a second signal that comes in between must not find 0.
  const bool first = first_signal_time.compare_exchange_strong(none, now);
  stop_requested = true;
  return !first && now - first_signal_time >= patience;
}

void on_signal(int signal, siginfo_t* info, void* context) {
  const int error = errno;
  const bool end = note_signal();
  call_previous(signal, info, context);
  if (end) _exit(1);
  errno = error;
}

// Ours may interrupt what the earlier one could, on the stack that it was given.
void install(Handled& one) {
  sigaction(one.signal, nullptr, &one.previous);
  struct sigaction action {};
  action.sa_sigaction = on_signal;
  action.sa_mask = one.previous.sa_mask;
  action.sa_flags = SA_SIGINFO | SA_RESTART | (one.previous.sa_flags & (SA_ONSTACK | SA_NODEFER));
  sigaction(one.signal, &action, nullptr);
}

void restore(const Handled& one) {
  struct sigaction now {};
  sigaction(one.signal, nullptr, &now);
  const bool ours = (now.sa_flags & SA_SIGINFO) != 0 && now.sa_sigaction == on_signal;
  if (ours) sigaction(one.signal, &one.previous, nullptr);
}

}  // namespace

StopSignals::StopSignals(double patience_seconds) {
  TESSERA_CHECK(!alive.exchange(true), Code::invalid_argument,
                "this process has a StopSignals already: there can be one");
  stop_requested = false;
  first_signal_time = 0;
  patience = static_cast<std::int64_t>(patience_seconds * 1e9);
  for (Handled& one : handled) install(one);
}

StopSignals::~StopSignals() {
  for (const Handled& one : handled) restore(one);
  alive = false;
}

bool StopSignals::requested() const {
  return stop_requested;
}

}  // namespace tessera::engine
