// SPDX-License-Identifier: Apache-2.0
#include "tessera/engine/run_setup.hpp"

#include <fmt/format.h>

#include "tessera/base/cpu_features.hpp"
#include "tessera/base/error.hpp"
#include "tessera/base/file.hpp"
#include "tessera/config/reader.hpp"
#include "tessera/engine/device_choice.hpp"
#include "tessera/engine/options.hpp"
#include "tessera/parallel/pipeline_stages.hpp"

namespace tessera::engine {
namespace {

void open_tokenizer(RunSetup& setup, int ranks) {
  setup.tokenizer = data::make_tokenizer(setup.config.data.tokenizer);
  config::resolve(setup.config, run_facts(ranks, setup));
}

void open_model(RunSetup& setup, int ranks, const nn::SequenceAxis& sequence,
                const nn::TensorAxis& tensor) {
  nn::ModelOptions options = model_options(setup.config);
  options.sequence = sequence;
  options.sequence.attention = nn::parse_sequence_attention(setup.config.mesh.sequence_attention);
  options.tensor = tensor;
  setup.model = nn::make_model(model_json(setup.config), options, setup.config.model.is_inline());
  config::resolve(setup.config, run_facts(ranks, setup));
  const config::RunConfig& config = setup.config;
  if (!config.model.is_inline() && checkpoint::ModelWeights::present(config.model.folder))
    setup.weights.emplace(config.model.folder);
  TESSERA_CHECK(config.data.sequence_length <= setup.model->positions(), Code::invalid_config,
                fmt::format("data.sequence_length is {} but the model has {} positions: make it "
                            "shorter, or that number larger",
                            config.data.sequence_length, setup.model->positions()));
  nn::token_shares(setup.model->options().sequence, config.data.sequence_length);  // or an error
  TESSERA_CHECK(
      setup.tokenizer->vocabulary_size() <= setup.model->vocabulary(), Code::invalid_config,
      fmt::format("the tokenizer '{}' has {} tokens but the model's vocab_size is {}: set "
                  "model.vocab_size to auto or at least {}",
                  setup.tokenizer->name(), setup.tokenizer->vocabulary_size(),
                  setup.model->vocabulary(), setup.tokenizer->vocabulary_size()));
}

/// nn::SequenceAxis or nn::TensorAxis.
template <typename ModelAxis>
ModelAxis open_axis(Mesh& mesh, Axis axis) {
  if (mesh.size(axis) == 1) return {};
  Communicator& group = mesh.group(axis);
  return {.size = group.size(), .rank = group.rank(), .group = &group};
}

// Where the model is cut into the stages of a pipeline.
std::vector<int> cut_model(RunSetup& setup, const parallel::PipelineShape& shape) {
  const std::vector<nn::LayerInfo> layers = setup.model->layers();
  const std::string& partition = setup.config.pipeline.partition;
  auto cuts = parallel::cut_layers(layers, shape.stages(), parallel::StageCut::parse(partition));
  setup.stages = parallel::describe_stages(layers, cuts);
  return cuts;
}

void divide_model(Runtime& runtime, RunSetup& setup) {
  if (setup.config.mesh.pipeline == 1) return;
  parallel::PipelineShape shape;
  std::vector<int> cuts;
  agreeing(runtime.world(), [&] {
    shape = pipeline_shape(setup.config);
    cuts = cut_model(setup, shape);
  });
  setup.tie_groups =
      parallel::take_stages(*setup.model, setup.mesh->group(Axis::pipeline), shape, cuts);
}

data::Sequences open_sequences(Runtime& runtime, const RunSetup& setup,
                               const std::vector<std::string>& sources, const std::string& name) {
  data::CorpusOptions options;
  options.sources = sources;
  options.field = setup.config.data.field;
  options.fallback_cache_folder = setup.config.run.folder;
  options.name = name;
  const auto corpus = std::make_shared<const data::Corpus>(runtime, *setup.tokenizer, options);
  return data::Sequences(corpus, setup.config.data.sequence_length, name);
}

}  // namespace

config::Facts run_facts(int ranks, const RunSetup& setup) {
  config::Facts facts;
  facts.ranks = ranks;
  facts.bf16_instructions = !setup.device.is_cpu() || has_bf16_instructions();
  if (setup.tokenizer) facts.vocabulary = setup.tokenizer->vocabulary_size();
  if (setup.model) facts.positions = setup.model->positions();
  if (setup.train) facts.sequences = setup.train->sequences().size();
  return facts;
}

std::string model_json(const config::RunConfig& config) {
  if (config.model.is_inline()) return config.model.json;
  return read_text(std::filesystem::path(config.model.folder) / "config.json");
}

RunSetup open_run(Runtime& runtime, config::RunConfig config) {
  RunSetup setup;
  setup.config = std::move(config);
  setup.device = choose_device(runtime, setup.config.device);
  agreeing(runtime.world(), [&] { open_tokenizer(setup, runtime.size()); });
  const config::MeshConfig& mesh = setup.config.mesh;
  setup.mesh = std::make_unique<Mesh>(
      runtime.world(), MeshShape{mesh.pipeline, mesh.data, mesh.sequence, mesh.tensor});
  const auto sequence = open_axis<nn::SequenceAxis>(*setup.mesh, Axis::sequence);
  const auto tensor = open_axis<nn::TensorAxis>(*setup.mesh, Axis::tensor);
  agreeing(runtime.world(), [&] { open_model(setup, runtime.size(), sequence, tensor); });
  divide_model(runtime, setup);
  const config::DataConfig& data = setup.config.data;
  data::Sequences all = open_sequences(runtime, setup, data.train, "data.train");
  if (!data.validation_files.empty()) {
    setup.validation = open_sequences(runtime, setup, data.validation_files, "data.validation");
  } else if (data.validation_fraction > 0) {
    auto [train, validation] = all.split(data.validation_fraction);
    all = std::move(train);
    setup.validation = std::move(validation);
  }
  setup.train.emplace(std::move(all), setup.config.run.seed);
  config::resolve(setup.config, run_facts(runtime.size(), setup));
  return setup;
}

RunSetup describe_run(int ranks, config::RunConfig config) {
  RunSetup setup;
  setup.config = std::move(config);
  setup.device.type = expected_device(setup.config.device);
  open_tokenizer(setup, ranks);
  open_model(setup, ranks, {.size = setup.config.mesh.sequence},
             {.size = setup.config.mesh.tensor});
  if (setup.config.mesh.pipeline > 1) {
    const parallel::PipelineShape shape = pipeline_shape(setup.config);
    setup.model->take_stages(parallel::pipeline_axis(shape, cut_model(setup, shape), 0));
  }
  return setup;
}

}  // namespace tessera::engine
