// SPDX-License-Identifier: Apache-2.0
// A whole training run from its run file: data, steps, validation, checkpoints, metrics, summary.
#pragma once

#include <cstdint>
#include <string>

#include "tessera/comm/runtime.hpp"
#include "tessera/config/run_config.hpp"

namespace tessera::engine {

struct TrainRequest {
  /// "auto": from the newest whole checkpoint in the run's folder, if there is one; "never": from
  /// the start, an earlier run in that folder is moved aside; else the path of a checkpoint.
  std::string resume = "auto";
  /// Stop when this step is done; 0: at the end of the run. The schedule does not change.
  std::int64_t stop_after = 0;
  int threads = 1;
  /// SIGUSR1 and SIGTERM stop the run after a save (StopSignals). Else they are the caller's.
  bool stop_on_signals = false;
};

/// Trains as `config` says and writes the run's folder. Collective over runtime.world().
/// Returns when the run is finished, when `stop_after` or run.minutes is reached, or when a signal
/// asked for it; a last checkpoint is always saved. Errors: as Error, the same on every rank;
/// not_a_number when several steps in a row had gradients that are not finite.
void train(Runtime& runtime, config::RunConfig config, const TrainRequest& request);

}  // namespace tessera::engine
