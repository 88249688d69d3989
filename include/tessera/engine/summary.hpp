// SPDX-License-Identifier: Apache-2.0
// summary.json: what a run did, in numbers that others can check.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "tessera/comm/runtime.hpp"
#include "tessera/engine/engine.hpp"
#include "tessera/engine/run_folder.hpp"

namespace tessera::engine {

struct SummaryInput {
  int threads = 1;
  std::optional<double> validation_loss;
  /// Of this rank and one step, as the matrix products counted them.
  std::int64_t step_flops = 0;
};

/// The text of summary.json; steps, times and losses come from the folder's metrics, so that a
/// resumed run counts whole. Collective over runtime.world(); only the first rank's text is
/// complete.
std::string make_summary(Runtime& runtime, Engine& engine, const RunFolder& folder,
                         const SummaryInput& input);

/// A few lines for people from a summary's text.
std::string describe_summary(const std::string& summary);

}  // namespace tessera::engine
