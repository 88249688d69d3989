// SPDX-License-Identifier: Apache-2.0
// tessera eval: loss and perplexity per token of documents.
#include <algorithm>
#include <cmath>
#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/log.hpp"
#include "tessera/base/number_format.hpp"
#include "tessera/data/corpus.hpp"
#include "tessera/engine/run_setup.hpp"
#include "tessera/parallel/evaluation.hpp"

#include "apps/tessera/model_arguments.hpp"
#include "apps/tessera/run_file.hpp"
#include "apps/tessera/session.hpp"

namespace tessera::app {
namespace {

struct Arguments {
  RunFileArguments run_file;
  ModelArguments model;
  std::vector<std::string> data;
  std::int64_t sequence_length = 0;
  std::int64_t rows = 4;
  bool json = false;
};

// Windows of `length` tokens over each document: every token but a document's first is a target
// once. The end-of-text that the corpus puts after a text is not part of it.
class Windows {
 public:
  Windows(const data::Corpus& corpus, data::Token end_of_text, std::int64_t length)
      : corpus_(corpus), length_(length) {
    for (std::int64_t d = 0; d < corpus.documents(); ++d) add_document(d, end_of_text);
  }

  std::int64_t size() const { return static_cast<std::int64_t>(windows_.size()); }

  void fill(std::int64_t row, std::int32_t* inputs, std::int32_t* targets) const {
    const auto [begin, count] = windows_[static_cast<std::size_t>(row)];
    std::vector<data::Token> tokens(static_cast<std::size_t>(count + 1));
    corpus_.read(begin, count + 1, tokens.data());
    std::copy_n(tokens.begin(), count, inputs);
    std::copy_n(tokens.begin() + 1, count, targets);
  }

 private:
  struct Window {
    std::int64_t begin;
    std::int64_t count;  // of targets
  };

  void add_document(std::int64_t d, data::Token end_of_text) {
    const std::int64_t begin = corpus_.document_begin(d);
    std::int64_t end = corpus_.document_begin(d + 1);
    if (end > begin) {
      data::Token last = 0;
      corpus_.read(end - 1, 1, &last);
      if (last == end_of_text) --end;
    }
    for (std::int64_t first = begin; first + 1 < end; first += length_)
      windows_.push_back({first, std::min(length_, end - 1 - first)});
  }

  const data::Corpus& corpus_;
  std::int64_t length_;
  std::vector<Window> windows_;
};

void print_result(const parallel::EvaluationResult& result, bool json) {
  const double loss = result.loss(), perplexity = std::exp(loss);
  if (json)
    std::cout << fmt::format("{{\"loss\": {}, \"perplexity\": {}, \"tokens\": {}}}\n",
                             json_number(loss), json_number(perplexity), result.tokens);
  else
    std::cout << fmt::format("loss {:.6f} nats per token\nperplexity {:.4f}\ntokens {}\n", loss,
                             perplexity, result.tokens);
}

void eval_on(Runtime& runtime, const Arguments& arguments, const std::string& model_name,
             std::int64_t sequence_length) {
  Communicator& world = runtime.world();
  const auto location = locate_on_all_ranks(world, model_name);
  const auto tokenizer = tokenizer_of(location);
  inference::ServedModel served = serve(runtime, location, arguments.model);
  data::CorpusOptions sources;
  sources.sources = arguments.data;
  sources.name = "--data";
  const data::Corpus corpus(runtime, *tokenizer, sources);
  const std::int64_t positions = served.model().positions();
  const std::int64_t length = sequence_length > 0 ? sequence_length : positions;
  TESSERA_CHECK(
      length <= positions, Code::invalid_argument,
      fmt::format("windows of {} tokens, but the model has {} positions", length, positions));
  const Windows windows(corpus, tokenizer->end_of_text(), length);
  TESSERA_CHECK(windows.size() > 0, Code::invalid_argument,
                "no document has two tokens: there is nothing to predict");
  const auto result = parallel::evaluate(
      served.model(), served.hooks(), served.data_group(), windows.size(), length, arguments.rows,
      [&](std::int64_t row, std::int32_t* inputs, std::int32_t* targets) {
        windows.fill(row, inputs, targets);
      },
      served.stream());
  if (runtime.rank() == 0) print_result(result, arguments.json);
}

int eval_all(const Arguments& arguments) {
  if (arguments.json)
    set_log_level(LogLevel::warning);  // standard output is for the program that reads it
  if (!arguments.model.model.empty())
    return on_all_ranks({}, [&](Runtime& runtime) {
      choose_threads(runtime, arguments.model.threads);
      eval_on(runtime, arguments, arguments.model.model, arguments.sequence_length);
    });
  config::ReadOptions options;
  options.for_training = false;
  return on_configured_ranks(
      arguments.run_file, options, [&](Runtime& runtime, config::RunConfig config) {
        choose_threads(runtime,
                       arguments.model.threads > 0 ? arguments.model.threads : config.run.threads);
        const std::int64_t length =
            arguments.sequence_length > 0 ? arguments.sequence_length : config.data.sequence_length;
        Arguments here = arguments;
        if (here.model.device == "auto") here.model.device = config.device;
        if (!here.model.pipeline) here.model.pipeline = config.mesh.pipeline;
        eval_on(runtime, here, config.run.folder, length);
      });
}

}  // namespace

void add_eval(CLI::App& app, Command& command) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* sub = app.add_subcommand("eval", "Measure loss and perplexity per token");
  sub->footer(
      "Documents are cut into windows that do not overlap; every token of a document but the first "
      "is a target once.\n"
      "With RUN.yaml the newest checkpoint of that run is measured, in as many stages as its mesh "
      "has.");
  auto* model = sub->add_option_group("model");
  add_model(*model, arguments->model, false);
  auto* file =
      sub->add_option("run_file", arguments->run_file.file, "Run file")->type_name("RUN.yaml");
  sub->add_option("--set", arguments->run_file.set, "Override a value of the run file")
      ->type_name("path=value")
      ->allow_extra_args(false);
  sub->add_option("--data", arguments->data, "Text files, .jsonl, prefixes of .bin/.idx; globs")
      ->required()
      ->type_name("FILES");
  sub->add_option(
         "--sequence-length", arguments->sequence_length,
         "Tokens of a window; default: the run's sequence_length, else the model's longest")
      ->check(CLI::PositiveNumber);
  sub->add_option("--rows", arguments->rows, "Windows that a rank computes at once")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_flag("--json", arguments->json, "Print JSON");
  sub->callback([&command, arguments, file] {
    if (arguments->model.model.empty() == file->empty())
      throw CLI::ValidationError("eval", "give either RUN.yaml or --model M");
    command = [arguments] { return eval_all(*arguments); };
  });
}

}  // namespace tessera::app
