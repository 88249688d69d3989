// SPDX-License-Identifier: Apache-2.0
// Stretches of code in which no handler of a signal may run.
#pragma once

#include <csignal>
#include <pthread.h>

namespace tessera {

/// The signals that come from outside; those that a thread's own fault raises stay deliverable,
/// for the handlers that print where it was.
inline sigset_t outside_signals() {
  sigset_t set;
  sigfillset(&set);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT})
    sigdelset(&set, fault);
  return set;
}

/// While one lives, signals from outside are not delivered to this thread, nor to threads that it
/// starts: they wait, or go to another thread.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    const sigset_t outside = outside_signals();
    pthread_sigmask(SIG_BLOCK, &outside, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_{};
};

}  // namespace tessera
