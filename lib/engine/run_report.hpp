// SPDX-License-Identifier: Apache-2.0
// What a run says of itself at its start and its end.
#pragma once

#include <cstdint>
#include <string>

#include "tessera/comm/runtime.hpp"
#include "tessera/engine/run_setup.hpp"

namespace tessera::engine {

enum class Stop { no, finished, step_limit, time_limit, signal };
/// As in events.jsonl.
const char* to_string(Stop stop);
/// For people: why the run ends after this step.
std::string describe_stop(Stop stop, std::int64_t step, std::int64_t total_steps);

/// Logs what is trained, on what and how.
void announce_run(Runtime& runtime, const RunSetup& setup, int threads);

}  // namespace tessera::engine
