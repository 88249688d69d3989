// SPDX-License-Identifier: Apache-2.0
// tessera logits: the logits of given token ids, to check a conversion against other software.
#include <algorithm>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/base/error.hpp"
#include "tessera/base/file.hpp"
#include "tessera/checkpoint/safetensors.hpp"

#include "apps/tessera/model_arguments.hpp"
#include "apps/tessera/session.hpp"

namespace tessera::app {
namespace {

using Rows = std::vector<std::vector<std::int32_t>>;

struct Arguments {
  ModelArguments model;
  std::string ids_file;
  std::string out_file;
};

Rows read_ids(const std::string& path, const nn::Model& model) {
  Rows rows;
  try {
    rows = nlohmann::json::parse(read_text(path)).get<Rows>();
  } catch (const nlohmann::json::exception& error) {
    fail(Code::invalid_argument,
         fmt::format("'{}' is not a JSON list of lists of token ids: {}", path, error.what()));
  }
  TESSERA_CHECK(!rows.empty(), Code::invalid_argument, fmt::format("'{}' has no rows", path));
  for (const auto& row : rows) {
    TESSERA_CHECK(!row.empty() && static_cast<std::int64_t>(row.size()) <= model.positions(),
                  Code::invalid_argument,
                  fmt::format("a row of '{}' has {} ids; the model takes 1 to {}", path, row.size(),
                              model.positions()));
    for (const std::int32_t id : row)
      TESSERA_CHECK(id >= 0 && id < model.vocabulary(), Code::invalid_argument,
                    fmt::format("'{}' has id {}; the vocabulary is 0 to {}", path, id,
                                model.vocabulary() - 1));
  }
  return rows;
}

void logits_on(Runtime& runtime, const Arguments& arguments) {
  choose_threads(runtime, arguments.model.threads);
  Communicator& world = runtime.world();
  const auto location = locate_on_all_ranks(world, arguments.model.model);
  inference::ServedModel served = serve(runtime, location, arguments.model);
  Rows rows;
  agreeing(world, [&] { rows = read_ids(arguments.ids_file, served.model()); });
  std::size_t longest = 0;
  for (const auto& row : rows) longest = std::max(longest, row.size());

  const std::int64_t vocabulary = served.model().vocabulary();
  const Shape shape{static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(longest),
                    vocabulary};
  std::vector<float> all(static_cast<std::size_t>(shape.numel()), 0.0f);
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const auto length = static_cast<std::int64_t>(rows[r].size());
    Tensor ids({1, length}, DType::int32);
    std::copy(rows[r].begin(), rows[r].end(), ids.as<std::int32_t>());
    autograd::Tape tape(autograd::Recording::off, &served.hooks(), served.stream());
    const Tensor logits =
        served.model().logits(tape, ids.on(served.stream())).on_host(served.stream());
    std::copy_n(logits.as<float>(), logits.numel(),
                all.begin() + static_cast<std::ptrdiff_t>(r * longest *
                                                          static_cast<std::size_t>(vocabulary)));
  }
  agreeing(world, [&] {
    if (runtime.rank() != 0) return;
    const checkpoint::SafetensorsInput tensor{"logits", DType::fp32, shape, all.data()};
    checkpoint::write_safetensors(arguments.out_file, std::span(&tensor, 1));
  });
}

}  // namespace

void add_logits(CLI::App& app, Command& command) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* sub =
      app.add_subcommand("logits", "Compute the logits of token ids, to check a conversion");
  sub->footer(
      "FILE of --out gets the safetensors `logits` [rows, longest, vocabulary] fp32, padded with "
      "0.");
  add_model(*sub, arguments->model);
  sub->add_option("--ids", arguments->ids_file, "JSON list of lists of token ids")
      ->required()
      ->type_name("FILE");
  sub->add_option("--out", arguments->out_file, "Safetensors file to write")
      ->required()
      ->type_name("FILE");
  sub->callback([&command, arguments] {
    command = [arguments] {
      return on_all_ranks({}, [&](Runtime& runtime) { logits_on(runtime, *arguments); });
    };
  });
}

}  // namespace tessera::app
