// SPDX-License-Identifier: Apache-2.0
// tessera inspect: what is in a checkpoint, a model folder, a safetensors or an indexed token file.
#include <filesystem>
#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/base/error.hpp"
#include "tessera/base/number_format.hpp"
#include "tessera/checkpoint/checksum.hpp"
#include "tessera/checkpoint/model_weights.hpp"
#include "tessera/checkpoint/reader.hpp"
#include "tessera/data/token_file.hpp"
#include "tessera/inference/served_model.hpp"

#include "apps/tessera/session.hpp"

namespace tessera::app {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

struct Arguments {
  std::string file;
  bool verify = false;
  bool json = false;
};

Json tensor_json(const Shape& shape, const std::string& dtype) {
  return {{"shape", shape.sizes()}, {"dtype", dtype}};
}

Json describe(const checkpoint::Reader& reader) {
  Json content;
  content["kind"] = "checkpoint";
  content["file"] = reader.path();
  content["format_version"] = reader.format_version();
  content["library_version"] = reader.library_version();
  content["step"] = reader.header().step;
  content["samples"] = reader.header().samples;
  content["tokens"] = reader.header().tokens;
  content["weights_checksum"] = checkpoint::format_checksum(reader.weights_checksum());
  for (const auto& dataset : reader.datasets())
    content["tensors"][dataset.path] = tensor_json(dataset.shape, to_string(dataset.dtype));
  return content;
}

Json describe(const checkpoint::SafetensorsFile& file) {
  Json content;
  content["kind"] = "safetensors";
  content["file"] = file.path();
  for (const auto& entry : file.entries())
    content["tensors"][entry.name] = tensor_json(entry.shape, entry.stored_type);
  return content;
}

Json describe(const checkpoint::ModelWeights& weights) {
  Json content;
  content["kind"] = "model folder";
  content["file"] = weights.folder();
  for (const std::string& name : weights.names())
    content["tensors"][name] = tensor_json(weights.shape(name), to_string(weights.dtype(name)));
  return content;
}

Json describe(const data::TokenFile& file, const std::string& prefix) {
  Json content;
  content["kind"] = "indexed tokens";
  content["file"] = prefix;
  content["tokens"] = file.tokens();
  content["documents"] = file.documents();
  return content;
}

void print_content(const Json& content) {
  double elements = 0;
  for (const auto& [key, value] : content.items()) {
    if (key != "tensors") {
      std::cout << fmt::format("{:<18} {}\n", key,
                               value.is_string() ? value.get<std::string>() : value.dump());
      continue;
    }
    for (const auto& [name, tensor] : value.items()) {
      const Shape shape(tensor["shape"].get<std::vector<std::int64_t>>());
      elements += static_cast<double>(shape.numel());
      std::cout << fmt::format("  {:<52} {:<6} {}\n", name, tensor["dtype"].get<std::string>(),
                               shape.to_string());
    }
  }
  if (content.contains("tensors"))
    std::cout << fmt::format("{} tensors, {} elements\n", content["tensors"].size(),
                             format_count(elements));
}

// Errors if a dataset is not what was saved.
void verify(const checkpoint::Reader& reader) {
  const auto damages = reader.verify();
  std::string text;
  for (const auto& damage : damages)
    text += fmt::format("\n  {}: expected {}, found {}", damage.path,
                        checkpoint::format_checksum(damage.expected),
                        checkpoint::format_checksum(damage.found));
  TESSERA_CHECK(
      damages.empty(), Code::io,
      fmt::format("'{}' is damaged in {} dataset(s):{}", reader.path(), damages.size(), text));
}

int inspect(const Arguments& arguments) {
  if (launcher_rank() != 0) return 0;
  const fs::path path(arguments.file);
  const auto show = [&](const Json& content) {
    if (arguments.json)
      std::cout << content.dump(2) << '\n';
    else
      print_content(content);
    return 0;
  };
  fs::path prefix = path;
  if (path.extension() == ".bin" || path.extension() == ".idx") prefix.replace_extension();
  if (data::TokenFile::present(prefix.string()))
    return show(describe(data::TokenFile(prefix.string()), prefix.string()));
  if (path.extension() == ".safetensors")
    return show(describe(checkpoint::SafetensorsFile(path.string())));
  if (fs::is_directory(path) && checkpoint::ModelWeights::present(path.string()))
    return show(describe(checkpoint::ModelWeights(path.string())));
  const checkpoint::Reader reader(inference::locate_model(arguments.file).path);
  show(describe(reader));
  if (arguments.verify) {
    verify(reader);
    if (!arguments.json) std::cout << "every checksum is right\n";
  }
  return 0;
}

}  // namespace

void add_inspect(CLI::App& app, Command& command) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* sub = app.add_subcommand(
      "inspect", "Show what is in a checkpoint, model folder, safetensors or indexed token file");
  sub->add_option("file", arguments->file, "File, folder or prefix")->required()->type_name("FILE");
  sub->add_flag("--verify", arguments->verify, "Recompute the checksums of a checkpoint");
  sub->add_flag("--json", arguments->json, "Print JSON");
  sub->callback([&command, arguments] { command = [arguments] { return inspect(*arguments); }; });
}

}  // namespace tessera::app
