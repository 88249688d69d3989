// SPDX-License-Identifier: Apache-2.0
#include "apps/tessera/model_arguments.hpp"

#include <filesystem>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "tessera/config/reader.hpp"
#include "tessera/engine/device_choice.hpp"

namespace tessera::app {

void add_model(CLI::App& sub, ModelArguments& arguments, bool required) {
  sub.add_option("--model", arguments.model,
                 "A Hugging Face folder, a checkpoint, or a run's folder (its newest checkpoint)")
      ->required(required)
      ->type_name("M");
  sub.add_option("--dtype", arguments.dtype, "Type to compute in: fp32, bf16 or fp16")
      ->check(CLI::IsMember({"fp32", "bf16", "fp16"}))
      ->capture_default_str();
  sub.add_option("--device", arguments.device, "Where to compute; auto: on GPUs if there are any")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  sub.add_option("--pipeline", arguments.pipeline,
                 "Divide the layers over so many ranks, as mesh.pipeline does in training")
      ->check(CLI::PositiveNumber);
  sub.add_option("--threads", arguments.threads, "Threads of each rank; 0 divides the node's cores")
      ->check(CLI::NonNegativeNumber);
}

inference::ModelLocation locate_on_all_ranks(Communicator& world, const std::string& name) {
  inference::ModelLocation found;
  agreeing(world, [&] {
    if (world.rank() == 0) found = inference::locate_model(name);
  });
  const nlohmann::json mine = {found.path, found.is_checkpoint, found.model_json, found.run_config};
  const auto first = nlohmann::json::parse(world.broadcast_text(mine.dump(), 0));
  return {first[0], first[1], first[2], first[3]};
}

inference::ServedModel serve(Runtime& runtime, const inference::ModelLocation& location,
                             const ModelArguments& arguments) {
  const Device device = engine::choose_device(runtime, arguments.device);
  return {runtime.world(), location, parse_dtype(arguments.dtype), device,
          arguments.pipeline.value_or(1)};
}

std::string tokenizer_name_of(const inference::ModelLocation& location) {
  if (!location.run_config.empty()) {
    config::ReadOptions options;
    options.for_training = false;
    const config::RunConfig config =
        config::read_run_text(location.run_config, location.path + ":config.yaml", options);
    return config.data.tokenizer;
  }
  const auto file = std::filesystem::path(location.path) / "tokenizer.json";
  return std::filesystem::exists(file) ? file.string() : "bytes";
}

std::unique_ptr<data::Tokenizer> tokenizer_of(const inference::ModelLocation& location) {
  return data::make_tokenizer(tokenizer_name_of(location));
}

}  // namespace tessera::app
