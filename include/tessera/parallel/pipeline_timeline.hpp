// SPDX-License-Identifier: Apache-2.0
// A pipeline schedule as a picture in text.
#pragma once

#include <string>

#include "tessera/parallel/pipeline_simulation.hpp"

namespace tessera::parallel {

/// One row per rank, one column per step of time (the largest in which all computations begin and
/// end), drawn as the papers do: F forward, B backward or its input part, W weight gradients, each
/// with its micro-batch, '-' while it goes on, '.' where the rank is idle. With two chunks the
/// second is in lower case; with more, a letter after the micro-batch names the chunk: F0a, F0b, …
std::string draw_timeline(const PipelineSchedule& schedule, const PipelineSimulation& simulation);

}  // namespace tessera::parallel
