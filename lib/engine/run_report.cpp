// SPDX-License-Identifier: Apache-2.0
#include "engine/run_report.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "tessera/base/log.hpp"
#include "tessera/base/number_format.hpp"
#include "tessera/engine/device_choice.hpp"
#include "tessera/engine/options.hpp"
#include "tessera/kernels/attention.hpp"
#include "tessera/parallel/pipeline_simulation.hpp"

#include "engine/attention_choice.hpp"

namespace tessera::engine {

const char* to_string(Stop stop) {
  switch (stop) {
    case Stop::step_limit:
      return "step_limit";
    case Stop::time_limit:
      return "time_limit";
    case Stop::signal:
      return "signal";
    default:
      return "finished";
  }
}

std::string describe_stop(Stop stop, std::int64_t step, std::int64_t total_steps) {
  const std::string place = fmt::format("step {} of {}", step, total_steps);
  switch (stop) {
    case Stop::signal:
      return fmt::format("stopped by a signal after {}; start again to continue", place);
    case Stop::time_limit:
      return fmt::format("run.minutes reached after {}; start again to continue", place);
    case Stop::step_limit:
      return fmt::format("stopped after {} as asked", place);
    default:
      return fmt::format("finished all {} steps", total_steps);
  }
}

namespace {

// The share of time without work where a backward takes twice a forward's time and all stages as
// long.
double expected_bubble(const parallel::PipelineShape& shape) {
  const auto costs = parallel::PipelineCosts::even(shape, {1, 1, 1});
  return parallel::simulate(parallel::make_pipeline_schedule(shape), costs)
      .bubble_fraction()
      .value();
}

// Where the pipeline stands empty for a good part of the time: the same batch in micro-batches
// that fill it. Empty where there is nothing to win.
std::string advise_micro_batches(parallel::PipelineShape shape, const config::Batch& batch) {
  constexpr double kLargeBubble = 0.25;
  constexpr std::int64_t kEnoughOfARank = 4;
  const std::int64_t rows = batch.micro * batch.accumulation;
  std::int64_t count = std::min(kEnoughOfARank * shape.ranks, rows);
  while (rows % count != 0) ++count;
  const double bubble = expected_bubble(shape);
  if (bubble < kLargeBubble || count <= batch.accumulation) return "";
  shape.micro_batches = static_cast<int>(count);
  return fmt::format("; {:.1f} % in {} micro-batches (engine.train_micro_batch_size_per_gpu: {})",
                     100 * expected_bubble(shape), count, rows / count);
}

std::string describe_pipeline(const config::RunConfig& config) {
  const parallel::PipelineShape shape = pipeline_shape(config);
  return fmt::format("pipeline: {}, bubble {:.1f} % if all stages take as long{}",
                     shape.to_string(), 100 * expected_bubble(shape),
                     advise_micro_batches(shape, config.engine.batch));
}

}  // namespace

void announce_run(Runtime& runtime, const RunSetup& setup, int threads) {
  const config::RunConfig& config = setup.config;
  for (const std::string& notice : config.notices) log_info(notice);
  const config::RunSection& run = config.run;
  if (setup.device.is_cpu() && (run.tf32 || run.measure_products || run.cuda_graph))
    log_warning(
        "run.tf32, run.measure_products and run.cuda_graph are for GPUs: this run computes on the "
        "CPU");
  log_info(fmt::format("model: {} parameters in {} units, {}",
                       format_count(static_cast<double>(setup.model->parameter_count())),
                       setup.model->units().size(), to_string(config.engine.dtype)));
  log_info(fmt::format("data: {} sequences of {} tokens{}", setup.train->sequences().size(),
                       config.data.sequence_length,
                       setup.validation
                           ? fmt::format(", {} held back for validation", setup.validation->size())
                           : ""));
  const std::string between_gpus = runtime.world().device_transport();
  const MeshShape& shape = setup.mesh->shape();
  const std::string axes =
      shape.data == shape.ranks() ? "" : fmt::format(" = {}", shape.to_string());
  log_info(fmt::format(
      "mesh: {} rank(s){} x {} thread(s), ZeRO stage {}, transport {}{}, device {}", runtime.size(),
      axes, threads, config.engine.zero.stage, runtime.world().transport(),
      between_gpus.empty() ? "" : " + " + between_gpus, describe_device(setup.device)));
  if (!setup.stages.empty()) log_info(describe_pipeline(config) + "\n" + setup.stages);
  if (!setup.device.is_cpu())
    log_info("attention: " + describe_attention(kernels::attention_kernels()));
  if (const nn::SequenceAxis& axis = setup.model->options().sequence; axis.size > 1)
    log_info(fmt::format("sequences are shared by {} ranks: {} attention", axis.size,
                         nn::to_string(axis.attention)));
  log_info(fmt::format("batch: {} sequences = {} x {} micro-batch(es) x {} rank(s)",
                       config.engine.batch.train, config.engine.batch.micro,
                       config.engine.batch.accumulation, config.mesh.data));
}

}  // namespace tessera::engine
