// SPDX-License-Identifier: Apache-2.0
#include "tessera/engine/learner.hpp"

#include <array>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/parallel/model_state.hpp"

namespace tessera::engine {
namespace {

std::unique_ptr<nn::Network> make_network(Communicator& group, const GuestConfig& config,
                                          std::vector<nn::GivenLayer> layers) {
  std::unique_ptr<nn::Network> network;
  agreeing(group, [&] {
    TESSERA_CHECK(!config.model_json.empty(), Code::invalid_config,
                  "the configuration has no `model`, for example model: {model_type: mlp, "
                  "layer_sizes: [6, 64, 64, 1]}");
    network = nn::make_network(config.model_json, config.model, true, std::move(layers));
  });
  return network;
}

std::int64_t samples_of(const Tensor& tensor) {
  return tensor.shape().rank() > 0 ? tensor.size(0) : 1;
}

/// The statistics of all ranks' samples, folded by rank, joined to what is known.
void observe_together(Communicator& group, nn::Standardization& known, const Tensor& rows) {
  nn::Standardization mine(known.features());
  agreeing(group, [&] {
    if (!rows) return;
    TESSERA_CHECK(rows.dtype() == DType::fp32 && rows.numel() == samples_of(rows) * mine.features(),
                  Code::invalid_argument,
                  fmt::format("cannot observe {} of shape {}: fp32 [samples, {}] is wanted",
                              to_string(rows.dtype()), rows.shape().to_string(), mine.features()));
    mine.observe(rows);
  });
  for (const std::string& text : group.all_gather_text(mine.to_json()))
    known.merge(nn::Standardization::parse(text, known.features()));
}

}  // namespace

Learner::Learner(Communicator& group, const GuestConfig& config, std::vector<nn::GivenLayer> layers)
    : group_(group),
      network_(make_network(group, config, std::move(layers))),
      engine_(group, *network_, config.engine),
      micro_batches_(config.accumulation) {
  parallel::initialize(*network_, engine_.optimizer(), config.engine.seed);
}

void Learner::check(const Tensor& inputs, const Tensor* targets) {
  const Device device = engine_.stream().device();
  agreeing(group_, [&] {
    for (const Tensor* tensor : {&inputs, targets})
      TESSERA_CHECK(tensor == nullptr || tensor->device().is_cpu() || tensor->device() == device,
                    Code::invalid_argument,
                    fmt::format("samples lie on {}, but the network on {}: bring them there or to "
                                "the host",
                                tensor->device().to_string(), device.to_string()));
    network_->check(inputs, targets);
  });
}

void Learner::observe(const Tensor& inputs, const Tensor& targets) {
  const Traffic::Pause pause(group_.traffic());
  const auto statistics = network_->statistics();
  TESSERA_CHECK(statistics[0] != nullptr || statistics[1] != nullptr, Code::invalid_argument,
                "the model scales neither inputs nor outputs: set normalize_inputs or "
                "normalize_outputs of model_type mlp");
  if (statistics[0] != nullptr) observe_together(group_, *statistics[0], inputs);
  if (statistics[1] != nullptr) observe_together(group_, *statistics[1], targets);
}

/// Number of this rank's first sample in the global batch: dropout depends on it.
std::int64_t Learner::first_sample(std::int64_t samples) {
  const Traffic::Pause pause(group_.traffic());
  std::vector<std::int64_t> counts(static_cast<std::size_t>(group_.size()));
  group_.all_gather(&samples, counts.data(), 1, DType::int64).wait();
  std::int64_t first = 0;
  for (int rank = 0; rank < group_.rank(); ++rank) first += counts[static_cast<std::size_t>(rank)];
  return first;
}

StepOutcome Learner::train_step(const Tensor& inputs, const Tensor& targets) {
  start_step(inputs, targets);
  return finish_step();
}

StepOutcome Learner::train_step(const Tensor& inputs, const LossFunction& loss) {
  start_step(inputs, loss);
  return finish_step();
}

StepStart Learner::start_step(const Tensor& inputs, const Tensor& targets) {
  check(inputs, &targets);
  return start(inputs, targets, nullptr);
}

StepStart Learner::start_step(const Tensor& inputs, const LossFunction& loss) {
  agreeing(group_, [&] {
    TESSERA_CHECK(
        network_->takes_loss_function(), Code::not_supported,
        "this type of model has a loss of its own and takes no other; model_type mlp does");
  });
  check(inputs, nullptr);
  return start(inputs, Tensor::zeros({samples_of(inputs)}, network_->target_type()), &loss);
}

StepStart Learner::start(const Tensor& inputs, const Tensor& targets, const LossFunction* loss) {
  const std::int64_t samples = samples_of(inputs), first = first_sample(samples);
  std::vector<nn::Batch> batches;
  for (std::int64_t k = 0; k < micro_batches_; ++k) {
    const std::int64_t begin = samples * k / micro_batches_;
    const std::int64_t end = samples * (k + 1) / micro_batches_;
    nn::Batch batch;
    batch.ids = inputs.rows(begin, end);
    batch.targets = targets.rows(begin, end);
    batch.first_row = first + begin;
    if (loss != nullptr)
      batch.loss = [loss, begin](const Tensor& outputs, const Tensor& gradients) {
        return (*loss)(begin, outputs, gradients);
      };
    batches.push_back(std::move(batch));
  }
  return engine_.start_step(batches);
}

double Learner::evaluate(const Tensor& inputs, const Tensor& targets) {
  check(inputs, &targets);
  const Traffic::Pause pause(group_.traffic());
  nn::Batch batch;
  batch.ids = inputs;
  batch.targets = targets;
  batch.training = false;
  autograd::Tape tape(autograd::Recording::off, &engine_.hooks(), engine_.stream());
  std::array<double, 2> totals = {network_->forward_loss(tape, batch.on(engine_.stream())).sum(),
                                  static_cast<double>(network_->count_targets(targets))};
  group_.all_reduce_scalars(totals, Reduction::sum);
  return totals[1] > 0 ? totals[0] / totals[1] : 0;
}

Tensor Learner::predict(const Tensor& inputs) {
  const Traffic::Pause pause(group_.traffic());
  check(inputs, nullptr);
  autograd::Tape tape(autograd::Recording::off, &engine_.hooks(), engine_.stream());
  return network_->predict(tape, inputs.on(engine_.stream()));
}

}  // namespace tessera::engine
