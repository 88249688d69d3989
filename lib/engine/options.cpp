// SPDX-License-Identifier: Apache-2.0
#include "tessera/engine/options.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/engine/device_choice.hpp"

namespace tessera::engine {
namespace {

optim::UpdateOptions update_options(const config::OptimizerConfig& optimizer) {
  optim::UpdateOptions rule;
  rule.type = optimizer.type;
  rule.lr = optimizer.lr;
  rule.weight_decay = optimizer.weight_decay;
  rule.beta1 = optimizer.beta1;
  rule.beta2 = optimizer.beta2;
  rule.epsilon = optimizer.eps;
  rule.adam_w_mode = optimizer.decoupled;
  rule.bias_correction = optimizer.bias_correction;
  rule.momentum = optimizer.momentum;
  rule.dampening = optimizer.dampening;
  rule.nesterov = optimizer.nesterov;
  return rule;
}

optim::ParameterGroupOptions group_options(const config::OptimizerConfig& optimizer) {
  return {optimizer.weight_decay, optimizer.decay_all, optimizer.no_decay_patterns};
}

optim::LossScalerOptions scaler_options(const config::Fp16Config& fp16) {
  return {.static_scale = fp16.loss_scale,
          .initial_scale_power = fp16.initial_scale_power,
          .window = fp16.loss_scale_window,
          .hysteresis = fp16.hysteresis,
          .consecutive_hysteresis = fp16.consecutive_hysteresis,
          .minimum = fp16.min_loss_scale};
}

}  // namespace

CommOptions comm_options(const config::RunConfig& config) {
  CommOptions options;
  options.transport = config.comm.transport;
  options.device_transport = config.comm.device_transport;
  if (config.comm.nodes) options.nodes = *config.comm.nodes;
  options.checked = config.comm.checked;
  options.timeout_seconds = config.comm.timeout_seconds;
  return options;
}

nn::ModelOptions model_options(const config::RunConfig& config) {
  nn::ModelOptions options;
  options.dtype = config.engine.dtype;
  options.recompute = nn::parse_recompute(config::to_string(config.run.recompute));
  options.recompute_every = config.run.recompute_every;
  options.partition_activations = config.engine.partition_activations;
  options.host_activations =
      config.engine.cpu_checkpointing && expected_device(config.device) == DeviceType::cuda;
  options.sequence_parallel = config.mesh.sequence_parallel;
  return options;
}

parallel::PipelineShape pipeline_shape(const config::RunConfig& config) {
  const auto micro_batches = std::max<std::int64_t>(1, config.engine.batch.accumulation);
  const parallel::PipelineShape shape{parallel::pipeline_kind(config.pipeline.schedule),
                                      config.mesh.pipeline, static_cast<int>(micro_batches),
                                      config.pipeline.chunks};
  try {
    return shape.resolved();
  } catch (const Error& error) {
    fail(Code::invalid_config,
         fmt::format("pipeline.schedule {} with pipeline.chunks {}, mesh.pipeline {} and {} "
                     "micro-batches: {}",
                     config.pipeline.schedule, config.pipeline.chunks, config.mesh.pipeline,
                     micro_batches, error.what()));
  }
}

optim::ScheduleOptions schedule_options(const config::EngineConfig& engine) {
  optim::ScheduleOptions options;
  options.type = engine.scheduler.type;
  for (const auto& [name, value] : engine.scheduler.params)
    options.parameters[name] =
        std::visit([](const auto& v) { return optim::ScheduleParameter(v); }, value);
  return options;
}

EngineOptions engine_options(const config::RunConfig& config, Device device) {
  const config::EngineConfig& engine = config.engine;
  EngineOptions options;
  options.zero.device = device;
  options.zero.stage = engine.zero.stage;
  options.zero.rule = update_options(engine.optimizer);
  options.zero.dtype = engine.dtype;
  options.zero.communication_dtype = engine.communication_dtype;
  options.zero.gradient_clipping = engine.gradient_clipping;
  options.zero.accumulation_steps = static_cast<int>(engine.batch.accumulation);
  options.zero.accumulation_dtype = engine.accumulation_dtype;
  options.zero.reduce_every_micro_batch = config.comm.reduce_every_micro_batch;
  options.zero.reduce_bucket_size = engine.zero.reduce_bucket_size;
  options.zero.gather_bucket_size = engine.zero.allgather_bucket_size;
  options.zero.prefetch_elements = engine.zero.prefetch_bucket_size;
  options.zero.overlap = engine.zero.overlap_comm;
  options.schedule = schedule_options(engine);
  options.groups = group_options(engine.optimizer);
  if (engine.fp16) options.loss_scaler = scaler_options(*engine.fp16);
  options.seed = config.run.seed;
  // Where `device: auto` finds no GPU there is none to record, and a warning says so.
  options.cuda_graph = config.run.cuda_graph && !device.is_cpu();
  options.pipeline = parallel::pipeline_kind(config.pipeline.schedule);
  options.keep_gathered = config.pipeline.keep_gathered;
  return options;
}

}  // namespace tessera::engine
