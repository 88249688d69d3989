// SPDX-License-Identifier: Apache-2.0
// The line that tells a person how a run is getting on.
#pragma once

#include <cstdint>
#include <deque>
#include <string>

namespace tessera::engine {

struct StepReport {
  std::int64_t step = 0;
  double loss = 0;
  double learning_rate = 0;
  double gradient_norm = 0;
  double seconds = 0;
  double tokens_per_second = 0;
  double flops_per_second = 0;
  std::int64_t memory_bytes = 0;
  bool skipped = false;
};

/// Estimates the time left from the recent steps; a limit in minutes counts too.
class Progress {
 public:
  Progress(std::int64_t first_step, std::int64_t last_step, double time_limit_seconds);

  /// "step 120/300  loss 1.8234  lr 6.00e-04  norm 0.91  12.3 k tokens/s  98.1 GFLOP/s  1.2 GiB
  /// 0:42 left"
  std::string line(const StepReport& report, double elapsed_seconds);

 private:
  std::int64_t last_step_;
  double time_limit_seconds_;
  int digits_;
  std::deque<double> recent_seconds_;
};

}  // namespace tessera::engine
