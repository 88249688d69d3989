// SPDX-License-Identifier: Apache-2.0
#include "tessera/inference/served_model.hpp"

#include <filesystem>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/file.hpp"
#include "tessera/checkpoint/folder.hpp"
#include "tessera/checkpoint/model_weights.hpp"
#include "tessera/checkpoint/reader.hpp"
#include "tessera/device/cuda.hpp"
#include "tessera/parallel/model_state.hpp"

namespace tessera::inference {
namespace {

namespace fs = std::filesystem;

ModelLocation from_checkpoint(const std::string& path) {
  const checkpoint::Reader reader(path);
  return {path, true, reader.header().model, reader.header().config};
}

zero::Options storage_options(Communicator& holders, Communicator& everyone, DType dtype,
                              Device device) {
  zero::Options options;
  options.stage = holders.size() > 1 ? 3 : 0;
  options.everyone = &everyone;
  options.device = device;
  options.dtype = dtype;
  options.rule.type = "SGD";  // has no states
  options.inference = true;
  return options;
}

}  // namespace

ModelLocation locate_model(const std::string& name) {
  const fs::path path(name);
  TESSERA_CHECK(
      fs::exists(path), Code::io,
      fmt::format("there is no '{}': give a Hugging Face folder, a checkpoint file or the "
                  "folder of a run",
                  name));
  if (!fs::is_directory(path)) return from_checkpoint(name);
  if (fs::exists(path / "config.json")) return {name, false, read_text(path / "config.json"), ""};
  for (const fs::path& folder : {path / "checkpoints", path})
    if (const auto newest = checkpoint::Folder(folder.string()).newest())
      return from_checkpoint(newest->path);
  fail(Code::io, fmt::format("'{}' holds neither config.json (a Hugging Face model) nor whole "
                             "checkpoints (a run's folder)",
                             name));
}

void ServedModel::take_stages(int pipeline) {
  group_.open_device(stream_.device());
  mesh_ = std::make_unique<Mesh>(group_, MeshShape{.pipeline = pipeline, .data = 0});
  mesh_->group(Axis::pipeline).open_device(stream_.device());
  const parallel::PipelineShape shape =
      parallel::PipelineShape{.ranks = mesh_->size(Axis::pipeline)}.resolved();
  ties_ = parallel::take_stages(*model_, mesh_->group(Axis::pipeline), shape,
                                parallel::cut_layers(model_->layers(), shape.stages(), {}));
}

ServedModel::ServedModel(Communicator& group, const ModelLocation& location, DType dtype,
                         Device device, int pipeline)
    : group_(group), stream_(current_stream(device)) {
  nn::ModelOptions options;
  options.dtype = dtype;
  model_ = nn::make_model(location.model_json, options);
  if (pipeline != 1) take_stages(pipeline);
  Communicator& holders = data_group();
  weights_ = std::make_unique<zero::PartitionedOptimizer>(
      holders, storage_options(holders, group, dtype, device));
  parallel::add_parameters(*model_, *weights_);
  weights_->commit();
  if (location.is_checkpoint) {
    const checkpoint::Reader reader(group, location.path);
    parallel::load_parameters(*model_, *weights_, reader);
  } else {
    std::unique_ptr<checkpoint::ModelWeights> files;
    agreeing(group, [&] { files = std::make_unique<checkpoint::ModelWeights>(location.path); });
    parallel::load_parameters(*model_, *weights_, *files);
  }
  binding_ = std::make_unique<parallel::UnitBinding>(*model_, *weights_);
}

}  // namespace tessera::inference
