// SPDX-License-Identifier: Apache-2.0
// A network that a program trains on data of its own, batch by batch.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "tessera/comm/communicator.hpp"
#include "tessera/engine/engine.hpp"
#include "tessera/engine/guest_config.hpp"
#include "tessera/nn/given_layer.hpp"
#include "tessera/nn/model.hpp"
#include "tessera/tensor/tensor.hpp"

namespace tessera::engine {

/// Makes the network of a configuration and its engine. Batches are the program's: each rank brings
/// its own samples, any number of them, which may differ from rank to rank and be none. Tensors
/// have the network's types, nn::Network::input_type() and target_type(), and are samples along
/// their first dimension. Samples that do not fit the network on one rank are an error on all.
///
/// Those of the host are read before a call returns. On a GPU, tensors may lie there as well: they
/// are read in the order of engine().stream(), which a program that writes them on another stream
/// has to make wait (Stream::wait), and of which what predict() returns is the work. A program's
/// own losses and layers then get tensors of the GPU (nn::LossFunction, autograd::LayerFunctions).
///
/// Collective: everything but the queries, over `group`, which must outlive it.
class Learner {
 public:
  /// `layers` are computed by the program. Errors: invalid_config without a model; as
  /// nn::make_network.
  Learner(Communicator& group, const GuestConfig& config, std::vector<nn::GivenLayer> layers = {});

  nn::Network& network() { return *network_; }
  Engine& engine() { return engine_; }

  /// Samples for the scaling of inputs and outputs, where the model has that; counts them with
  /// those of earlier calls. Either tensor may be undefined. Errors: invalid_argument for a model
  /// that scales neither.
  void observe(const Tensor& inputs, const Tensor& targets);
  /// One optimizer step on the samples of all ranks together, in as many micro-batches as the
  /// configuration says.
  StepOutcome train_step(const Tensor& inputs, const Tensor& targets);
  /// The same with a loss of the program's own, which is called for one micro-batch after the
  /// other: `first` is the number of its first sample among this rank's. The step's loss is the
  /// mean over the samples of all ranks. Errors: not_supported for networks that have no use for
  /// it.
  using LossFunction =
      std::function<double(std::int64_t first, const Tensor& outputs, const Tensor& gradients)>;
  StepOutcome train_step(const Tensor& inputs, const LossFunction& loss);
  /// Both in two halves, as Engine has them: the caller goes on while a GPU computes and messages
  /// travel, and finishes the step before anything else is asked of this network.
  StepStart start_step(const Tensor& inputs, const Tensor& targets);
  StepStart start_step(const Tensor& inputs, const LossFunction& loss);
  StepOutcome finish_step() { return engine_.finish_step(); }
  /// The loss of the samples of all ranks together, without training.
  double evaluate(const Tensor& inputs, const Tensor& targets);
  /// What the network says to this rank's samples, on the network's device.
  Tensor predict(const Tensor& inputs);

 private:
  void check(const Tensor& inputs, const Tensor* targets);
  std::int64_t first_sample(std::int64_t samples);
  StepStart start(const Tensor& inputs, const Tensor& targets, const LossFunction* loss);
  Communicator& group_;
  std::unique_ptr<nn::Network> network_;
  Engine engine_;
  std::int64_t micro_batches_;
};

}  // namespace tessera::engine
