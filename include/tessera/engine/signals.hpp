// SPDX-License-Identifier: Apache-2.0
// A request from outside to stop: SIGUSR1 or SIGTERM sets a flag that the training loop reads at
// the next step.
#pragma once

namespace tessera::engine {

/// While one lives, SIGUSR1 and SIGTERM ask for a stop. Nothing in the library makes one unless it
/// is told to (TrainRequest::stop_on_signals): the signals of a host program are its own.
///
/// A handler that was there before is still called, after ours and with the same arguments; where
/// the signal was ignored or had its default action, nothing more happens. At the end the earlier
/// dispositions come back, unless somebody has replaced ours in the meantime. A second signal
/// `patience_seconds` or more after the first ends the process at once with status 1 (a repeated
/// delivery of one signal by launcher and batch system does not). At most one may live in a
/// process.
class StopSignals {
 public:
  explicit StopSignals(double patience_seconds = 5);
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  /// True once a signal came to this rank.
  bool requested() const;
};

}  // namespace tessera::engine
