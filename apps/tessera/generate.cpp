// SPDX-License-Identifier: Apache-2.0
// tessera generate: continues a prompt.
#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/file.hpp"
#include "tessera/inference/generator.hpp"

#include "apps/tessera/model_arguments.hpp"
#include "apps/tessera/session.hpp"

namespace tessera::app {
namespace {

struct Arguments {
  ModelArguments model;
  std::string prompt;
  std::string prompt_file;
  inference::GenerationOptions options;
};

void generate_on(Runtime& runtime, const Arguments& arguments) {
  choose_threads(runtime, arguments.model.threads);
  inference::validate(arguments.options.sampling);
  Communicator& world = runtime.world();
  const auto location = locate_on_all_ranks(world, arguments.model.model);
  const auto tokenizer = tokenizer_of(location);
  std::string prompt = arguments.prompt;
  agreeing(world, [&] {
    if (!arguments.prompt_file.empty()) prompt = read_text(arguments.prompt_file);
  });
  inference::ServedModel served = serve(runtime, location, arguments.model);
  inference::GenerationOptions options = arguments.options;
  options.end_of_text = tokenizer->end_of_text();
  // An empty prompt means: begin a new document.
  std::vector<data::Token> tokens = tokenizer->encode(prompt);
  if (tokens.empty()) tokens = {tokenizer->end_of_text()};
  const bool speaks = runtime.rank() == 0;
  if (speaks) std::cout << prompt << std::flush;
  inference::generate(served, tokens, options, [&](data::Token token) {
    if (speaks && token < tokenizer->vocabulary_size())
      std::cout << tokenizer->decode(std::span(&token, 1)) << std::flush;
  });
  if (speaks) std::cout << '\n';
}

}  // namespace

void add_generate(CLI::App& app, Command& command) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* sub = app.add_subcommand("generate", "Write text that continues a prompt");
  add_model(*sub, arguments->model);
  auto* prompt = sub->add_option("--prompt", arguments->prompt, "The text to continue");
  sub->add_option("--prompt-file", arguments->prompt_file, "A file with the text to continue")
      ->excludes(prompt);
  sub->add_option("--max-tokens", arguments->options.max_tokens, "Tokens to write at most")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  inference::SamplingOptions& sampling = arguments->options.sampling;
  sub->add_option("--temperature", sampling.temperature, "0 always takes the likeliest token")
      ->capture_default_str();
  sub->add_option("--top-k", sampling.top_k, "Choose among the k likeliest tokens; 0: all")
      ->capture_default_str();
  sub->add_option("--top-p", sampling.top_p,
                  "Choose among the likeliest tokens that reach this probability")
      ->capture_default_str();
  sub->add_option("--seed", sampling.seed, "Of the random choice")->capture_default_str();
  sub->callback([&command, arguments] {
    command = [arguments] {
      return on_all_ranks({}, [&](Runtime& runtime) { generate_on(runtime, *arguments); });
    };
  });
}

}  // namespace tessera::app
