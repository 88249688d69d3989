// SPDX-License-Identifier: Apache-2.0
#include "tessera/parallel/evaluation.hpp"

#include <algorithm>
#include <array>
#include <span>

#include "tessera/parallel/pipeline_executor.hpp"

namespace tessera::parallel {
namespace {

// Rows [first, first + rows); those from `end` on are empty, so that every rank has a batch to
// gather units for.
nn::Batch make_batch(std::int64_t first, std::int64_t rows, std::int64_t end, std::int64_t length,
                     const FillRow& fill) {
  nn::Batch batch;
  batch.ids = Tensor::zeros({rows, length}, DType::int32, {}, Purpose::workspace);
  batch.targets = Tensor({rows, length}, DType::int32, {}, Purpose::workspace);
  batch.training = false;
  auto* ids = batch.ids.as<std::int32_t>();
  auto* targets = batch.targets.as<std::int32_t>();
  std::fill_n(targets, rows * length, -1);
  for (std::int64_t i = 0; i < rows && first + i < end; ++i)
    fill(first + i, ids + i * length, targets + i * length);
  return batch;
}

// In stages only one rank finds a loss; 0 on the others.
double loss_of(nn::Model& model, autograd::UnitHooks& hooks, const nn::Batch& batch,
               const Stream& stream) {
  if (model.in_stages()) {
    const autograd::Loss loss = evaluate_stages(model, hooks, batch, stream);
    return loss.known() ? loss.sum() : 0;
  }
  autograd::Tape tape(autograd::Recording::off, &hooks, stream);
  return model.forward_loss(tape, batch.on(stream)).sum();
}

}  // namespace

std::int64_t count_valid(const Tensor& targets) {
  const auto* ids = targets.as<std::int32_t>();
  return std::count_if(ids, ids + targets.numel(), [](std::int32_t id) { return id >= 0; });
}

EvaluationResult evaluate(nn::Model& model, autograd::UnitHooks& hooks, Communicator& group,
                          std::int64_t rows, std::int64_t length, std::int64_t rows_per_rank,
                          const FillRow& fill, const Stream& stream) {
  const nn::SequenceAxis& sequence = model.options().sequence;
  const auto or_group = [&](Communicator* axis) -> Communicator& { return axis ? *axis : group; };
  const Traffic::Pause pause(group.traffic());
  const Traffic::Pause tensor_pause(or_group(model.options().tensor.group).traffic());
  const Traffic::Pause sequence_pause(or_group(sequence.group).traffic());
  Communicator* const line = model.pipeline().group;
  const Traffic::Pause line_pause(or_group(line).traffic());
  const int data_ranks = group.size() / sequence.size, data_rank = group.rank() / sequence.size;
  std::array<double, 2> totals = {0, 0};
  for (std::int64_t round = 0; round < rows; round += rows_per_rank * data_ranks) {
    const nn::Batch batch =
        make_batch(round + data_rank * rows_per_rank, rows_per_rank, rows, length, fill);
    totals[0] += loss_of(model, hooks, batch, stream);
    if (sequence.rank == 0) totals[1] += static_cast<double>(count_valid(batch.targets));
  }
  group.all_reduce_scalars(totals, Reduction::sum);
  if (line != nullptr) line->all_reduce_scalars(std::span(totals).first(1), Reduction::sum);
  return {totals[0], static_cast<std::int64_t>(totals[1])};
}

}  // namespace tessera::parallel
