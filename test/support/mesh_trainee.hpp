// SPDX-License-Identifier: Apache-2.0
// A TinyModel, trained on any mesh.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/comm/mesh.hpp"
#include "tessera/engine/engine.hpp"
#include "tessera/nn/models/decoder.hpp"
#include "tessera/parallel/model_state.hpp"
#include "tessera/parallel/pipeline_stages.hpp"

#include "support/test_device.hpp"
#include "support/tiny_model.hpp"

namespace tessera::test {

/// How the model is divided and trained.
struct MeshTrial {
  MeshShape mesh{};  // of all ranks of the communicator
  int stage = 0;
  parallel::PipelineKind kind = parallel::PipelineKind::one_forward_one_backward;
  int chunks = 0;
  std::vector<int> cuts{};  // empty: by parameters
  bool keep_gathered = true;
  bool reduce_every_micro_batch = false;
  bool rows_apart = false;  // each row of a batch is a micro-batch; pipelines always do so
  int steps = 3;
  nn::ModelOptions model{};
  double dropout = 0;
  double clipping = 1.0;
  bool plain_descent = false;  // large steps of SGD alone: what is subtracted shows the gradients
  std::optional<bool> tied{};  // as the reference
  bool biased = false;         // of Llama, whose reference has no biases
  int layers =
      0;  // 0: those of the reference; weights are its own, or drawn where anything differs
  std::int64_t inner = 0;                          // with `layers`: 0: four times the width
  std::int64_t positions = TinyModel::kPositions;  // of each row, from its first on

  std::string to_string() const {
    return fmt::format("{}{}, {} attention, stage {}, {}, {}, recompute {}/{}, dropout {}, tied {}",
                       mesh.to_string(), model.sequence_parallel ? ", token shards" : "",
                       nn::to_string(model.sequence.attention), stage, parallel::to_string(kind),
                       tessera::to_string(model.dtype), static_cast<int>(model.recompute),
                       model.recompute_every, dropout,
                       tied ? (*tied ? "true" : "false") : "as it is");
  }
};

/// The first positions of every row.
inline nn::Batch shortened(const nn::Batch& batch, std::int64_t positions) {
  nn::Batch result = batch;
  const auto cut = [&](const Tensor& whole) {
    const Tensor part({whole.size(0), positions}, DType::int32);
    for (std::int64_t row = 0; row < whole.size(0); ++row)
      std::copy_n(whole.as<std::int32_t>() + row * whole.size(1), positions,
                  part.as<std::int32_t>() + row * positions);
    return part;
  };
  result.ids = cut(batch.ids);
  result.targets = cut(batch.targets);
  return result;
}

/// The model, its optimizer and the groups that a mesh gives them. Collective, as are all its
/// members that train or read weights.
class MeshTrainee {
 public:
  MeshTrainee(Communicator& world, const TinyModel& tiny, const MeshTrial& trial)
      : tiny_(tiny), trial_(trial), mesh_(world, trial.mesh) {
    model_ = nn::make_model(config_of(tiny.model()->config_json()), model_options());
    if (trial.mesh.pipeline > 1) take_stages();
    engine_.emplace(mesh_.group("data+sequence"), *model_, engine_options());
    if (nlohmann::json::parse(model_->config_json()) ==
        nlohmann::json::parse(tiny.model()->config_json()))
      parallel::load_parameters(*model_, engine_->optimizer(), tiny.weights());
    else
      parallel::initialize(*model_, engine_->optimizer(), 7);
    for (std::size_t index = 0; index < model_->parameters().size(); ++index)
      start_.push_back(own_values(static_cast<int>(index)));
  }

  /// This data rank's rows of the next step, whole.
  nn::Batch batch() const {
    const auto [first, last] = rows();
    return shortened(tiny_.batch(engine_->step(), first, last - first), trial_.positions);
  }
  engine::StepOutcome step() {
    std::vector<nn::Batch> micro;
    if (rows_apart()) {
      const auto [first, last] = rows();
      for (std::int64_t row = first; row < last; ++row)
        micro.push_back(shortened(tiny_.batch(engine_->step(), row, 1), trial_.positions));
    } else {
      micro.push_back(batch());
    }
    return engine_->train_step(micro);
  }

  /// What was subtracted, since they were loaded, from elements of a parameter that this rank owns.
  std::vector<float> descent(int index) {
    std::vector<float> difference = own_values(index);
    const std::vector<float>& start = start_[static_cast<std::size_t>(index)];
    for (std::size_t i = 0; i < start.size(); ++i) difference[i] = start[i] - difference[i];
    return difference;
  }

  std::uint64_t checksum() { return parallel::weights_checksum(*model_, engine_->optimizer()); }
  engine::Engine& engine() { return *engine_; }
  nn::Model& model() { return *model_; }
  const nn::DecoderSizes& sizes() const { return dynamic_cast<nn::Decoder&>(*model_).sizes(); }
  Mesh& mesh() { return mesh_; }
  int micro_batches() const {
    return rows_apart() ? static_cast<int>(TinyModel::kRows) / mesh_.size("data") : 1;
  }

 private:
  /// The model's with what the trial changes.
  std::string config_of(const std::string& reference) const {
    auto config = nlohmann::json::parse(reference);
    const bool is_gpt2 = config["model_type"] == "gpt2";
    for (const char* key : {"embd_pdrop", "attn_pdrop", "resid_pdrop"})
      if (is_gpt2) config[key] = trial_.dropout;
    if (!is_gpt2) config["attention_dropout"] = trial_.dropout;
    if (trial_.biased) config["attention_bias"] = config["mlp_bias"] = true;
    if (trial_.tied) config["tie_word_embeddings"] = *trial_.tied;
    if (trial_.layers > 0) config[is_gpt2 ? "n_layer" : "num_hidden_layers"] = trial_.layers;
    if (trial_.inner > 0) config[is_gpt2 ? "n_inner" : "intermediate_size"] = trial_.inner;
    return config.dump();
  }
  std::vector<float> own_values(int index) {
    const zero::Range owned = engine_->optimizer().owned(index);
    std::vector<float> values(static_cast<std::size_t>(owned.count));
    engine_->optimizer().master(index, owned.begin, owned.count, values.data());
    return values;
  }
  bool rows_apart() const { return trial_.rows_apart || trial_.mesh.pipeline > 1; }
  Interval rows() const {
    const int ranks = engine_->data_ranks(), rank = engine_->data_rank();
    return {TinyModel::kRows * rank / ranks, TinyModel::kRows * (rank + 1) / ranks};
  }

  nn::ModelOptions model_options() {
    nn::ModelOptions options = trial_.model;
    options.tensor = {mesh_.size("tensor"), mesh_.coordinate("tensor"), &mesh_.group("tensor")};
    options.sequence.size = mesh_.size("sequence");
    options.sequence.rank = mesh_.coordinate("sequence");
    options.sequence.group = &mesh_.group("sequence");
    return options;
  }
  engine::EngineOptions engine_options() {
    engine::EngineOptions options;
    options.zero.device = testing::test_device();
    options.zero.stage = trial_.stage;
    options.zero.dtype = trial_.model.dtype;
    options.zero.rule.lr = 0.002;
    options.zero.rule.beta2 = 0.95;
    options.groups.weight_decay = 0.1;
    options.zero.gradient_clipping = trial_.clipping;
    if (trial_.plain_descent) {
      // Large enough that what is subtracted, not the weight, decides how differences are rounded.
      options.zero.rule.type = "SGD";
      options.zero.rule.lr = 1024;
      options.groups.weight_decay = 0;
      options.zero.gradient_clipping = 0;
    }
    options.zero.accumulation_steps = micro_batches();
    options.zero.reduce_every_micro_batch = trial_.reduce_every_micro_batch;
    options.zero.everyone = &mesh_.group("pipeline+data+sequence+tensor");
    options.pipeline = trial_.kind;
    options.keep_gathered = trial_.keep_gathered;
    return options;
  }
  void take_stages() {
    const auto shape =
        parallel::PipelineShape{trial_.kind, mesh_.size("pipeline"), 1, trial_.chunks}.resolved();
    Communicator& line = mesh_.group("pipeline");
    const auto cuts = trial_.cuts.empty()
                          ? parallel::cut_layers(model_->layers(), shape.stages(), {})
                          : trial_.cuts;
    ties_ = parallel::take_stages(*model_, line, shape, cuts);
  }

  const TinyModel& tiny_;
  MeshTrial trial_;
  Mesh mesh_;
  parallel::TieGroups ties_;
  std::unique_ptr<nn::Model> model_;
  std::optional<engine::Engine> engine_;
  std::vector<std::vector<float>> start_;  // own values of each parameter
};

}  // namespace tessera::test
