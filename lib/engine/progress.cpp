// SPDX-License-Identifier: Apache-2.0
#include "tessera/engine/progress.hpp"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include "tessera/base/number_format.hpp"

namespace tessera::engine {
namespace {

constexpr std::size_t kRecentSteps = 20;

}  // namespace

Progress::Progress(std::int64_t first_step, std::int64_t last_step, double time_limit_seconds)
    : last_step_(last_step),
      time_limit_seconds_(time_limit_seconds),
      digits_(static_cast<int>(std::to_string(std::max(first_step, last_step)).size())) {}

std::string Progress::line(const StepReport& report, double elapsed_seconds) {
  recent_seconds_.push_back(report.seconds);
  if (recent_seconds_.size() > kRecentSteps) recent_seconds_.pop_front();
  const double mean = std::accumulate(recent_seconds_.begin(), recent_seconds_.end(), 0.0) /
                      static_cast<double>(recent_seconds_.size());
  double left = mean * static_cast<double>(last_step_ - report.step);
  if (time_limit_seconds_ > 0) left = std::min(left, time_limit_seconds_ - elapsed_seconds);
  return fmt::format(
      "step {:>{}}/{}  loss {:.4f}  lr {:.2e}  norm {:.2f}  {} tokens/s  {}FLOP/s  {}  {} left{}",
      report.step, digits_, last_step_, report.loss, report.learning_rate, report.gradient_norm,
      format_count(report.tokens_per_second), format_count(report.flops_per_second),
      format_bytes(static_cast<double>(report.memory_bytes)), format_duration(std::max(0.0, left)),
      report.skipped ? "  (skipped)" : "");
}

}  // namespace tessera::engine
