// SPDX-License-Identifier: Apache-2.0
// What the engine knows of a network that it trains, and what else it and inference know of a
// causal language model.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tessera/autograd/head_loss.hpp"
#include "tessera/autograd/tape.hpp"
#include "tessera/nn/kv_cache.hpp"
#include "tessera/nn/parameter.hpp"
#include "tessera/nn/pipeline_axis.hpp"
#include "tessera/nn/sequence_axis.hpp"
#include "tessera/nn/standardization.hpp"

namespace tessera {
class Communicator;
}

namespace tessera::nn {

/// What is kept of a block between forward and backward: all it needs; all but what is cheap to
/// compute again (LayerNorm and activation outputs); its input only. The same bits in every case.
enum class Recompute : std::uint8_t { none, selective, full };
/// "none", "selective", "full"; throws invalid_config.
Recompute parse_recompute(const std::string& name);

/// The ranks that hold a model together, each a part of every large matrix (Shoeybi et al. 2019).
struct TensorAxis {
  int size = 1;
  int rank = 0;
  /// Of that size and rank, and longer alive than the model; nullptr: the model's parameters are
  /// as on that rank, but it cannot compute.
  Communicator* group = nullptr;
};

struct ModelOptions {
  DType dtype = DType::fp32;  // of parameters and activations: fp32, bf16 or fp16
  Recompute recompute = Recompute::none;
  int recompute_every = 1;             // of layers 0, n, 2n, ...; the others keep what they make
  bool partition_activations = false;  // inputs of recomputed layers: a share on each tensor rank
  bool host_activations = false;       // they wait in page-locked host memory, off the GPU
  bool sequence_parallel = false;  // all between matrix products: some tokens on each tensor rank
  TensorAxis tensor{};
  SequenceAxis sequence{};

  Recompute recompute_of(std::int64_t layer) const {
    return layer % recompute_every == 0 ? recompute : Recompute::none;
  }
};

/// A program's own loss: takes a network's outputs [samples, outputs] fp32, as predict() returns
/// them, writes their gradient (same shape) and returns the sum over the samples. On a GPU both lie
/// there; the gradient has to be there when it returns.
using LossFunction = std::function<double(const Tensor& outputs, const Tensor& gradients)>;

/// One micro-batch of one rank.
struct Batch {
  // Of a language model [rows, positions] int32, whole rows on every rank of a sequence group,
  // where a target is the id that should follow (negative: none); of other networks what they say.
  Tensor ids;
  Tensor targets;
  std::int64_t first_row = 0;  // global index of row 0 in the step's global batch (keys dropout)
  std::uint64_t seed = 0;      // of the run
  std::uint64_t step = 0;      // number of the optimizer step
  float gradient_scale = 1;    // 1 / global number of valid targets (times a loss scale)
  bool training = true;        // dropout on
  // If set, `step`, `first_row` and `gradient_scale` are those that lie there: of a pass that is
  // recorded (Graph). For networks that can_be_recorded().
  const autograd::PassMemory* memory = nullptr;
  LossFunction loss;  // instead of the network's own; `targets` is then [samples]

  /// The same with ids and targets on the stream's device.
  Batch on(const Stream& stream) const {
    Batch moved = *this;
    moved.ids = ids.on(stream);
    moved.targets = targets.on(stream);
    return moved;
  }
};

/// A group of parameters that ZeRO gathers together. Unit i is number i in UnitHooks.
struct Unit {
  std::string name;
  std::vector<NamedParameter> parameters;
  /// In forward the unit is held from position first_use to last_use, counted in units: {i, i} but
  /// for the embedding of a tied head, {0, number of units - 1}.
  int first_use;
  int last_use;
  /// Stage of a pipeline that uses it.
  int stage = 0;
  /// Of one parameter, which other units have too, on this rank or on others: each with gradients
  /// of its own, which are added up before an update.
  bool tied = false;
};

/// What can be trained: parameters in units, and a loss.
class Network {
 public:
  virtual ~Network() = default;

  /// Of this rank.
  const std::vector<Unit>& units() const { return units_; }
  /// Unit by unit, in layout order.
  std::vector<NamedParameter> parameters() const;
  /// Of the whole network, each once, in an order that every rank has alike; those of other stages
  /// are names and shapes.
  std::vector<NamedParameter> logical_parameters() const;
  /// Logical parameters, a tied one once.
  std::int64_t parameter_count() const;
  const ModelOptions& options() const { return options_; }

  /// The configuration that it is built from, a JSON object with `model_type`.
  virtual std::string config_json() const = 0;
  /// The sum of the losses of a micro-batch: of this rank's tokens where a sequence group shares
  /// its rows, the same on every rank of the tensor group. On a recording tape it is known, and
  /// gradients are there, after tape.backward(); see autograd::Loss.
  virtual autograd::Loss forward_loss(autograd::Tape& tape, const Batch& batch) = 0;
  /// How many losses forward_loss() adds up: a step's loss is their mean.
  virtual std::int64_t count_targets(const Tensor& targets) const = 0;
  /// What the network says to `inputs`, fp32; no gradients, no dropout.
  virtual Tensor predict(autograd::Tape& tape, const Tensor& inputs) = 0;
  /// Element types of Batch::ids and Batch::targets.
  virtual DType input_type() const = 0;
  virtual DType target_type() const = 0;
  /// Throws invalid_argument for inputs, or targets (nullptr: none), that it cannot take;
  /// beforehand and without communication, so that ranks may agree on it.
  virtual void check(const Tensor& inputs, const Tensor* targets) const = 0;

  /// Where a pipeline may cut the network, in forward order; empty: nowhere, or it has been cut.
  virtual std::vector<LayerInfo> layers() const { return {}; }
  /// From now on the network is the stages of one rank: units() are theirs, forward_stage()
  /// computes them, and what needs the whole network is not_supported. Before anything refers to
  /// units().
  void take_stages(const PipelineAxis& axis);
  /// Of one rank and no stages unless take_stages() said otherwise.
  const PipelineAxis& pipeline() const { return pipeline_; }
  bool in_stages() const { return !pipeline_.cuts.empty(); }
  /// One of this rank's stages: `input` is what the stage before made of the same micro-batch, of
  /// which the first stage takes the ids and the last one the targets.
  virtual StageOutput forward_stage(autograd::Tape& tape, int stage, const Batch& batch,
                                    const autograd::Value& input);

  /// Whether forward and backward of a batch on a GPU are work of its stream alone, without waits
  /// and without copies of host memory.
  virtual bool can_be_recorded() const { return false; }
  /// Brings what passes read beside parameters and batches to the stream's device, where it stays.
  /// Passes do so by themselves; before those in an Arena, whose memory is not for keeping, call
  /// it.
  virtual void bring_constants(const Stream& /*stream*/) {}
  /// Whether a batch may bring a loss of its own.
  virtual bool takes_loss_function() const { return false; }
  /// Scaling of inputs and of outputs, where the network has that, else nullptr.
  virtual std::vector<Standardization*> statistics() { return {nullptr, nullptr}; }
  /// What belongs to the weights but is no tensor, a JSON text for checkpoints; "": nothing.
  virtual std::string extra_state() const { return {}; }
  virtual void set_extra_state(const std::string& /*text*/) {}

  /// The leading dimension that a file's tensor may have otherwise (LoadRules); 0: none.
  virtual std::int64_t vocabulary() const { return 0; }
  /// Names that parameter `name` may have in files, the preferred one first.
  virtual std::vector<std::string> names_in_files(const std::string& name) const { return {name}; }
  /// True for tensors that files hold but this network does not need (mask buffers, a tied head's
  /// copy).
  virtual bool ignores(const std::string& /*name_in_file*/) const { return false; }

 protected:
  /// Errors: invalid_argument.
  explicit Network(const ModelOptions& options);
  /// To be called when units_ are complete. In each unit what is split over the tensor axis comes
  /// first, then what is held by several, then the rest, which counts on the first rank only
  /// (Parameter::counted): a norm sums over a leading range.
  void arrange_for_tensor_axis();
  /// The units of pipeline().own; by itself unit i is layer i.
  virtual std::vector<Unit> units_of_stages();
  std::vector<Unit> units_;
  ModelOptions options_;
  PipelineAxis pipeline_{};

 private:
  std::vector<NamedParameter> logical_;  // where it is in stages
};

/// A causal language model.
class Model : public Network {
 public:
  /// Tokens.
  std::int64_t vocabulary() const override = 0;
  /// The longest sequence.
  virtual std::int64_t positions() const = 0;
  /// Hugging Face's config.json of this model.
  std::string config_json() const override = 0;
  /// FLOPs of this rank in forward and backward for `rows` sequences of `positions` tokens, without
  /// recomputation: 2 m n k of every matrix product, attention as kernels::flop_count counts it.
  virtual std::int64_t training_flops(std::int64_t rows, std::int64_t positions) const = 0;
  /// Peak of Purpose::activations bytes on this rank's device in a training micro-batch with
  /// dropout, exact for the usual sizes (an inner width of at least twice the model's).
  virtual std::int64_t activation_bytes(std::int64_t rows, std::int64_t positions) const = 0;
  /// Of these, what stays from a micro-batch's forward to its backward.
  virtual std::int64_t kept_bytes(std::int64_t rows, std::int64_t positions) const = 0;
  /// What recorded passes keep at most beside these: blocks of sizes that do not peak at the same
  /// time, ids and targets.
  virtual std::int64_t recorded_bytes(std::int64_t rows, std::int64_t positions) const = 0;

  /// Targets that are not negative.
  std::int64_t count_targets(const Tensor& targets) const override;
  DType input_type() const override { return DType::int32; }
  DType target_type() const override { return DType::int32; }
  /// The logits.
  Tensor predict(autograd::Tape& tape, const Tensor& ids) override { return logits(tape, ids); }
  /// ids [rows, positions] int32 -> fp32 [rows, positions, vocabulary]; no gradients, no dropout.
  virtual Tensor logits(autograd::Tape& tape, const Tensor& ids) = 0;

  virtual KvCache make_cache(std::int64_t rows, std::int64_t capacity,
                             Device device = {}) const = 0;
  /// ids [rows, n] continue the cached sequences; appends their keys and values and returns the
  /// logits after the last of them, fp32 [rows, vocabulary]. invalid_argument when the cache is
  /// full or the model has no more positions.
  virtual Tensor forward_cached(autograd::Tape& tape, const Tensor& ids, KvCache& cache) = 0;

 protected:
  using Network::Network;
};

/// Builds the model that a Hugging Face config.json describes (`model_type`). With `strict`, a key
/// that Hugging Face does not know for this type is an error that names the nearest known one.
/// Errors: invalid_config for impossible values, not_supported for other types.
std::unique_ptr<Model> make_model(const std::string& config_json, const ModelOptions& options,
                                  bool strict = false);

/// The same, and networks that are no language models: model_type mlp.
std::unique_ptr<Network> make_network(const std::string& config_json, const ModelOptions& options,
                                      bool strict = false);

/// Classes that are not negative: [...] int32, on any device; waits for that of a GPU.
std::int64_t count_classes(const Tensor& targets);

/// The name under which a folder holds the parameter `name`, found by asking `shape_of` (nullopt:
/// no such tensor). Errors: io when it is missing or has another shape, naming the tensor and both
/// shapes.
std::string find_in_files(const Network& model, const NamedParameter& named,
                          const std::function<std::optional<Shape>(const std::string&)>& shape_of);

}  // namespace tessera::nn
