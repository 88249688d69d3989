// SPDX-License-Identifier: Apache-2.0
// Conversion: the model says which tensors there are, the checkpoint layer moves them.
#include "tessera/inference/convert.hpp"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <set>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/base/atomic_file.hpp"
#include "tessera/base/error.hpp"
#include "tessera/checkpoint/model_folder.hpp"
#include "tessera/checkpoint/model_weights.hpp"
#include "tessera/checkpoint/reader.hpp"
#include "tessera/checkpoint/writer.hpp"

namespace tessera::inference {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr std::string_view kParameters = "parameters/";

std::unique_ptr<nn::Model> model_of(const ModelLocation& source) {
  try {
    return nn::make_model(source.model_json, {});
  } catch (const Error& error) {
    throw error.in_context(source.path);
  }
}

const char* torch_name(DType dtype) {
  if (dtype == DType::bf16) return "bfloat16";
  return dtype == DType::fp16 ? "float16" : "float32";
}

/// What the model is in full, then what else the checkpoint knows of it.
std::string config_text(const nn::Model& model, const std::string& known,
                        const ExportOptions& options) {
  Json config = Json::parse(model.config_json());
  const Json more = Json::parse(known);
  for (const auto& [key, value] : more.items())
    if (!config.contains(key)) config[key] = value;
  if (options.end_of_text)
    for (const char* key : {"bos_token_id", "eos_token_id"})
      if (!config.contains(key)) config[key] = *options.end_of_text;
  config.erase("dtype");  // the newer name of the same; all versions read this one
  config["torch_dtype"] = torch_name(options.dtype);
  return config.dump(2) + "\n";
}

std::vector<std::string> unused_names(const nn::Model& model, const std::vector<std::string>& names,
                                      const std::set<std::string>& used) {
  std::vector<std::string> unused;
  for (const std::string& name : names)
    if (!used.contains(name) && !model.ignores(name)) unused.push_back(name);
  return unused;
}

/// Elements [begin, end) of all parameters, laid end to end, that a rank moves.
std::pair<std::int64_t, std::int64_t> share_of(const nn::Model& model, Communicator& group) {
  const std::int64_t all = model.parameter_count();
  const std::int64_t share = ceil_divide(all, group.size());
  const std::int64_t begin = std::min(group.rank() * share, all);
  return {begin, std::min(begin + share, all)};
}

/// One dataset a parameter, with this rank's piece of it; fills `used` with the stored names.
std::vector<checkpoint::TensorRecord> records_of(const nn::Model& model,
                                                 const checkpoint::ModelWeights& weights,
                                                 Communicator& group, std::set<std::string>& used) {
  const auto shape_of = [&](const std::string& name) -> std::optional<Shape> {
    if (!weights.contains(name)) return std::nullopt;
    return weights.shape(name);
  };
  const auto [first, last] = share_of(model, group);
  std::vector<checkpoint::TensorRecord> records;
  std::int64_t position = 0;
  for (const nn::NamedParameter& named : model.parameters()) {
    const std::string stored = nn::find_in_files(model, named, shape_of);
    used.insert(stored);
    const Shape& shape = named.parameter->shape();
    checkpoint::TensorRecord record{std::string(kParameters) + named.name, shape, DType::fp32, {}};
    const std::int64_t begin = std::max(first, position) - position;
    const std::int64_t end = std::min(last, position + shape.numel()) - position;
    if (begin < end) {
      checkpoint::Piece piece{begin, end - begin, nullptr, {}};
      piece.fill = [&weights, stored, begin = begin](std::int64_t offset, std::int64_t count,
                                                     void* target) {
        weights.read_range(stored, begin + offset, count, DType::fp32, target);
      };
      record.pieces.push_back(std::move(piece));
    }
    records.push_back(std::move(record));
    position += shape.numel();
  }
  return records;
}

void check_file_target(const std::string& file, bool replace) {
  TESSERA_CHECK(!fs::is_directory(file) && !file.ends_with('/'), Code::invalid_argument,
                fmt::format("{} is a folder, but a checkpoint is one file: give a name such as "
                            "{}.h5",
                            file, fs::path(file + "/").parent_path().string()));
  TESSERA_CHECK(replace || !fs::exists(file), Code::io,
                fmt::format("{} exists already and is not overwritten", file));
  std::error_code error;
  fs::create_directories(folder_of(file), error);
  TESSERA_CHECK(!error, Code::io,
                fmt::format("cannot make the folder {}: {}", folder_of(file), error.message()));
}

}  // namespace

ConversionReport export_model(Communicator& group, const ModelLocation& source,
                              const std::string& folder, const ExportOptions& options) {
  const checkpoint::Reader reader(group, source.path);
  ConversionReport report;
  std::vector<checkpoint::FolderTensor> tensors;
  checkpoint::FolderOptions write;
  agreeing(group, [&] {
    const auto model = model_of(source);
    std::set<std::string> used;
    std::vector<std::string> names;
    for (const auto& dataset : reader.datasets())
      if (dataset.path.starts_with(kParameters))
        names.push_back(dataset.path.substr(kParameters.size()));
    const auto shape_of = [&](const std::string& name) -> std::optional<Shape> {
      const std::string path = std::string(kParameters) + name;
      if (!reader.contains(path)) return std::nullopt;
      return reader.dataset(path).shape;
    };
    for (const nn::NamedParameter& named : model->parameters()) {
      const std::string stored = nn::find_in_files(*model, named, shape_of);
      used.insert(stored);
      tensors.push_back({std::string(kParameters) + stored, named.name});
    }
    report.unused = unused_names(*model, names, used);
    write.texts["config.json"] = config_text(*model, source.model_json, options);
  });
  write.dtype = options.dtype;
  write.max_shard_bytes = options.max_shard_bytes;
  write.replace = options.replace;
  write.copies = options.copies;
  const auto written = checkpoint::write_model_folder(group, reader, tensors, folder, write);
  report.tensors = static_cast<std::int64_t>(tensors.size());
  report.bytes = written.bytes;
  report.files = written.shards;
  report.seconds = written.seconds;
  for (const auto& tensor : tensors)
    report.weights_checksum += reader.dataset(tensor.dataset).checksum;
  return report;
}

ConversionReport import_model(Communicator& group, const ModelLocation& source,
                              const std::string& file, const ImportOptions& options) {
  std::unique_ptr<checkpoint::ModelWeights> weights;
  std::vector<checkpoint::TensorRecord> records;
  ConversionReport report;
  agreeing(group, [&] {
    const auto model = model_of(source);
    weights = std::make_unique<checkpoint::ModelWeights>(source.path);
    std::set<std::string> used;
    records = records_of(*model, *weights, group, used);
    report.tensors = static_cast<std::int64_t>(records.size());
    report.bytes = model->parameter_count() * static_cast<std::int64_t>(size_of(DType::fp32));
    report.unused = unused_names(*model, weights->names(), used);
    if (group.rank() == 0) check_file_target(file, options.replace);
  });
  checkpoint::Header header;
  header.model = source.model_json;
  header.config = options.config;
  report.seconds =
      checkpoint::save(group, file, header, std::move(records), {}, {.replace = options.replace})
          .seconds;
  report.weights_checksum = checkpoint::Reader(group, file).weights_checksum();
  return report;
}

}  // namespace tessera::inference
