// SPDX-License-Identifier: Apache-2.0
// From a run file's plain values to the options of the parts.
#pragma once

#include "tessera/comm/runtime.hpp"
#include "tessera/config/run_config.hpp"
#include "tessera/engine/engine.hpp"
#include "tessera/nn/model.hpp"
#include "tessera/parallel/pipeline_schedule.hpp"

namespace tessera::engine {

/// `config` must be resolved. Errors: not_supported for combinations that no part can do yet.
CommOptions comm_options(const config::RunConfig& config);
nn::ModelOptions model_options(const config::RunConfig& config);
/// Of a run with mesh.pipeline above 1. Errors: invalid_config.
parallel::PipelineShape pipeline_shape(const config::RunConfig& config);
EngineOptions engine_options(const config::RunConfig& config, Device device = {});

/// The learning-rate schedule of a run file; also what `tessera schedule` prints.
optim::ScheduleOptions schedule_options(const config::EngineConfig& engine);

}  // namespace tessera::engine
