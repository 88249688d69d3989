// SPDX-License-Identifier: Apache-2.0
#include "tessera/engine/estimate.hpp"

#include <algorithm>

#include "tessera/engine/options.hpp"
#include "tessera/parallel/pipeline_simulation.hpp"

namespace tessera::engine {
namespace {

// Of an element, beside the weight itself.
std::int64_t master_bytes(DType dtype) {
  if (dtype == DType::bf16) return 2;  // the lower half of a split master
  return dtype == DType::fp16 ? 4 : 0;
}

// Of the two buffers in which gradients are rounded where another type is sent than written.
std::int64_t staging_bytes(std::int64_t elements, bool sums_locally, const EstimateInput& input) {
  const DType written = sums_locally ? input.accumulation_dtype : input.dtype;
  const DType sent = input.communication_dtype.value_or(input.dtype);
  if (written == sent) return 0;
  return 2 * static_cast<std::int64_t>(size_of(sent)) *
         std::min(elements, input.reduce_bucket_size);
}

}  // namespace

zero::FlatLayout make_layout(const nn::Model& model, int ranks) {
  zero::FlatLayout layout(ranks);
  for (const nn::Unit& unit : model.units()) {
    layout.begin_unit(unit.name);
    // A stage's copy of a tied parameter has the name of the other.
    for (const auto& [name, parameter] : unit.parameters)
      layout.add(unit.name + "/" + name, parameter->shape());
  }
  return layout;
}

Estimate estimate_states(const zero::FlatLayout& layout, const EstimateInput& input) {
  const std::int64_t whole = layout.padded();
  const std::int64_t slice = whole / layout.ranks();
  const auto element = static_cast<std::int64_t>(size_of(input.dtype));
  const bool several = input.accumulation > 1;
  const bool early = several && input.reduce_every_micro_batch;
  const bool sharded = input.stage >= 2 || (input.stage == 1 && early);
  const auto gradient =
      static_cast<std::int64_t>(size_of(several ? input.accumulation_dtype : input.dtype));
  Estimate estimate;
  estimate.parameters = element * (input.stage == 3 ? slice : whole);
  estimate.gradients = gradient * (sharded ? slice : whole);
  estimate.optimizer =
      (master_bytes(input.dtype) + 4 * input.states) * (input.stage == 0 ? whole : slice);
  std::int64_t largest = 0;
  for (const zero::FlatUnit& unit : layout.units()) largest = std::max(largest, unit.padded);
  if (input.stage == 3)
    estimate.gathered = element * std::min(whole, 2 * largest + input.prefetch_elements);
  if (sharded)
    estimate.buckets = 2 * element * largest;
  else if (early)
    estimate.buckets = element * whole;
  estimate.buckets += staging_bytes(whole, several && !sharded && !early, input);
  // A rank saves its slice in every stage: the fp32 master and the states.
  if (input.asynchronous_saves) estimate.snapshot = 4 * (1 + input.states) * slice;
  return estimate;
}

EstimateInput estimate_input(const config::RunConfig& config) {
  EstimateInput input;
  input.stage = config.engine.zero.stage;
  input.dtype = config.engine.dtype;
  input.accumulation = config.engine.batch.accumulation;
  input.accumulation_dtype = config.engine.accumulation_dtype;
  input.reduce_every_micro_batch = config.comm.reduce_every_micro_batch;
  input.communication_dtype = config.engine.communication_dtype;
  input.reduce_bucket_size = config.engine.zero.reduce_bucket_size;
  input.prefetch_elements = config.engine.zero.prefetch_bucket_size;
  input.asynchronous_saves = config.run.checkpoint.asynchronous;
  if (config.engine.optimizer.type == "SGD")
    input.states = config.engine.optimizer.momentum != 0 ? 1 : 0;
  return input;
}

namespace {

// Of the micro-batches that a stage of a pipeline holds besides the one that is in backward, and of
// what arrives.
std::int64_t waiting_bytes(const nn::Model& model, const config::RunConfig& config,
                           std::int64_t rows, std::int64_t positions) {
  if (!model.in_stages()) return 0;
  const parallel::PipelineSchedule schedule =
      parallel::make_pipeline_schedule(pipeline_shape(config));
  const auto costs = parallel::PipelineCosts::even(schedule.shape, {1, 1, 1});
  const std::int64_t live =
      parallel::simulate(schedule, costs).peak_activations(model.pipeline().rank);
  const auto chunks = static_cast<std::int64_t>(model.pipeline().own.size());
  return (live - chunks) * model.kept_bytes(rows, positions) / chunks;
}

}  // namespace

Estimate estimate_run(const nn::Model& model, const config::RunConfig& config, int data_ranks,
                      int stage) {
  EstimateInput input = estimate_input(config);
  input.stage = stage;
  Estimate estimate =
      estimate_states(make_layout(model, data_ranks * model.options().sequence.size), input);
  const std::int64_t rows = std::max<std::int64_t>(1, config.engine.batch.micro);
  const std::int64_t positions = config.data.sequence_length;
  estimate.activations =
      model.activation_bytes(rows, positions) + waiting_bytes(model, config, rows, positions);
  if (config.run.cuda_graph && stage < 2)  // the others have no graphs
    estimate.activations += model.recorded_bytes(rows, positions);
  return estimate;
}

}  // namespace tessera::engine
