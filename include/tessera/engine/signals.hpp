// SPDX-License-Identifier: Apache-2.0
// A request from outside to stop: SIGUSR1 or SIGTERM sets a flag that the training loop reads at
// the next step.
#pragma once

#include <csignal>

namespace tessera::engine {

/// While one lives, SIGUSR1 and SIGTERM ask for a stop; the handlers that were there before come
/// back at the end. A second signal five seconds or more after the first ends the process at once
/// (a repeated delivery of one signal by launcher and batch system does not). At most one may live
/// in a process.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// True once a signal came to this rank.
  bool requested() const;

 private:
  struct sigaction previous_usr1_ {};
  struct sigaction previous_term_ {};
};

}  // namespace tessera::engine
