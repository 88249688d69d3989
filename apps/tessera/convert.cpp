// SPDX-License-Identifier: Apache-2.0
// tessera convert: a checkpoint as a Hugging Face folder, a Hugging Face folder as a checkpoint.
#include "tessera/inference/convert.hpp"

#include <filesystem>
#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "tessera/base/error.hpp"
#include "tessera/base/log.hpp"
#include "tessera/base/number_format.hpp"
#include "tessera/checkpoint/checksum.hpp"

#include "apps/tessera/model_arguments.hpp"
#include "apps/tessera/session.hpp"

namespace tessera::app {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFooter =
    "SOURCE a checkpoint, or a run's folder (its newest whole checkpoint): TARGET becomes a "
    "Hugging\n"
    "Face folder: config.json and model.safetensors, which transformers and tessera --model read.\n"
    "SOURCE a Hugging Face folder: TARGET becomes a checkpoint file with its weights in fp32, for\n"
    "tessera --model. It has no optimizer states: to train on, name the folder as `model:` of a "
    "run.\n"
    "\n"
    "fp32 keeps every bit, in both directions. bf16 and fp16 round to nearest even; a weight that "
    "is\n"
    "too large for them is an error that names it. Checksums are recomputed on the way: damaged\n"
    "weights are not exported. TARGET is written under a temporary name and renamed at the end, "
    "so\n"
    "it is whole or not there. Under mpirun the ranks divide the work; a rank holds a few MiB at "
    "a\n"
    "time, however large the model is.\n"
    "\n"
    "Examples:\n"
    "  tessera convert runs/headers headers-gpt2 --dtype bf16\n"
    "  tessera convert runs/headers/checkpoints/step-00000100.h5 out --max-shard-size 200MB\n"
    "  tessera convert gpt2 gpt2.h5         the folder gpt2, as downloaded\n"
    "  mpirun -n 8 tessera convert big.h5 big-folder";

// What tokenizers consist of in model folders.
constexpr const char* kTokenizerFiles[] = {
    "tokenizer.json", "tokenizer_config.json",   "tokenizer.model",  "vocab.json",
    "merges.txt",     "special_tokens_map.json", "added_tokens.json"};

struct Arguments {
  std::string source;
  std::string target;
  std::string dtype;
  std::string max_shard_size;
  bool overwrite = false;
};

DType weight_type(const std::string& name) {
  if (name.empty()) return DType::fp32;
  for (const DType dtype : {DType::fp32, DType::bf16, DType::fp16})
    if (name == to_string(dtype)) return dtype;
  fail(Code::invalid_argument,
       fmt::format("--dtype {}: weights are written in fp32, bf16 or fp16", name));
}

// The files of a tokenizer that is a file or a folder: name in the model folder -> path.
std::map<std::string, std::string> tokenizer_files(const std::string& tokenizer) {
  std::map<std::string, std::string> files;
  const fs::path path(tokenizer);
  if (!fs::exists(path)) {
    log_warning(fmt::format("the tokenizer '{}' is not there any more: the folder will have none",
                            tokenizer));
    return files;
  }
  const bool is_folder = fs::is_directory(path);
  const fs::path folder = is_folder ? path : path.parent_path();
  for (const char* name : kTokenizerFiles)
    if (fs::is_regular_file(folder / name) && (is_folder || path.filename() == "tokenizer.json"))
      files[name] = (folder / name).string();
  if (!is_folder) files["tokenizer.json"] = path.string();
  return files;
}

inference::ConversionReport export_checkpoint(Communicator& world,
                                              const inference::ModelLocation& source,
                                              const Arguments& arguments) {
  inference::ExportOptions options;
  agreeing(world, [&] {
    options.dtype = weight_type(arguments.dtype);
    if (!arguments.max_shard_size.empty())
      options.max_shard_bytes = parse_bytes(arguments.max_shard_size);
    TESSERA_CHECK(options.max_shard_bytes > 0, Code::invalid_argument,
                  "--max-shard-size must be larger than 0");
    options.replace = arguments.overwrite;
    if (source.run_config.empty()) return;
    const std::string tokenizer = tokenizer_name_of(source);
    if (tokenizer == "bytes")
      options.end_of_text = data::ByteTokenizer::kEndOfText;
    else if (world.rank() == 0)
      options.copies = tokenizer_files(tokenizer);
  });
  return inference::export_model(world, source, arguments.target, options);
}

inference::ConversionReport import_folder(Communicator& world,
                                          const inference::ModelLocation& source,
                                          const Arguments& arguments) {
  inference::ImportOptions options;
  agreeing(world, [&] {
    TESSERA_CHECK(
        weight_type(arguments.dtype) == DType::fp32, Code::invalid_argument,
        fmt::format("--dtype {}: a checkpoint holds its weights in fp32", arguments.dtype));
    TESSERA_CHECK(arguments.max_shard_size.empty(), Code::invalid_argument,
                  "--max-shard-size: a checkpoint is one file");
    options.replace = arguments.overwrite;
    const std::string tokenizer = tokenizer_name_of(source);
    if (tokenizer == "bytes") return;
    const nlohmann::json path = fs::absolute(tokenizer).lexically_normal().string();
    options.config = fmt::format("data: {{tokenizer: {}}}\n", path.dump());
  });
  return inference::import_model(world, source, arguments.target, options);
}

void convert_on(Runtime& runtime, const Arguments& arguments) {
  Communicator& world = runtime.world();
  const auto source = locate_on_all_ranks(world, arguments.source);
  const auto report = source.is_checkpoint ? export_checkpoint(world, source, arguments)
                                           : import_folder(world, source, arguments);
  if (runtime.rank() != 0) return;
  if (!report.unused.empty())
    log_warning(fmt::format("left out, because the model has no place for them: {}",
                            fmt::join(report.unused, ", ")));
  std::cout << fmt::format(
      "{} -> {}: {} tensors, {} in {} file(s), weights checksum {}, {:.1f} s\n", source.path,
      arguments.target, report.tensors, format_bytes(static_cast<double>(report.bytes)),
      report.files, checkpoint::format_checksum(report.weights_checksum), report.seconds);
}

}  // namespace

void add_convert(CLI::App& app, Command& command) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* sub = app.add_subcommand(
      "convert",
      "Turn a checkpoint into a Hugging Face folder, or such a folder into a checkpoint");
  sub->footer(kFooter);
  sub->add_option("source", arguments->source,
                  "A checkpoint, a run's folder, or a Hugging Face folder")
      ->required()
      ->type_name("SOURCE");
  sub->add_option("target", arguments->target, "The folder or file to write")
      ->required()
      ->type_name("TARGET");
  sub->add_option("--dtype", arguments->dtype,
                  "Type of a folder's weights: fp32, bf16 or fp16 [fp32]")
      ->type_name("D");
  sub->add_option(
         "--max-shard-size", arguments->max_shard_size,
         "Most weights in one file of a folder: 200MB, 1GiB, bytes [5GB]; a larger tensor has "
         "a file of its own")
      ->type_name("S");
  sub->add_flag("--overwrite", arguments->overwrite, "Replace TARGET if it exists");
  sub->callback([&command, arguments] {
    command = [arguments] {
      return on_all_ranks({}, [&](Runtime& runtime) { convert_on(runtime, *arguments); });
    };
  });
}

}  // namespace tessera::app
