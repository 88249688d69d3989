// SPDX-License-Identifier: Apache-2.0
// Options of the subcommands that use a finished model.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "tessera/data/tokenizer.hpp"
#include "tessera/inference/served_model.hpp"

namespace CLI {
class App;
}

namespace tessera::app {

struct ModelArguments {
  std::string model;
  std::string dtype = "fp32";
  std::string device = "auto";
  int threads = 0;
  std::optional<int> pipeline{};
};

/// Declares --model (required or not), --dtype, --device, --pipeline and --threads.
void add_model(CLI::App& sub, ModelArguments& arguments, bool required = true);

/// What `name` means, found by the first rank and told to all. Collective.
inference::ModelLocation locate_on_all_ranks(Communicator& world, const std::string& name);

/// The model of --model in the type and on the device that the arguments say. Collective.
inference::ServedModel serve(Runtime& runtime, const inference::ModelLocation& location,
                             const ModelArguments& arguments);

/// The tokenizer that belongs to a model, as run files name it: that of its run, or of its folder;
/// "bytes" where a folder has none.
std::string tokenizer_name_of(const inference::ModelLocation& location);
std::unique_ptr<data::Tokenizer> tokenizer_of(const inference::ModelLocation& location);

}  // namespace tessera::app
