// SPDX-License-Identifier: Apache-2.0
// tessera estimate: bytes per rank for each ZeRO stage, before anything runs.
#include "tessera/engine/estimate.hpp"

#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "tessera/base/number_format.hpp"
#include "tessera/comm/runtime.hpp"
#include "tessera/device/memory.hpp"
#include "tessera/engine/run_setup.hpp"

#include "apps/tessera/run_file.hpp"
#include "apps/tessera/session.hpp"

namespace tessera::app {
namespace {

struct Arguments {
  RunFileArguments run_file;
  int ranks = 0;
};

std::string bytes(std::int64_t count) {
  return format_bytes(static_cast<double>(count));
}

// Parameters of the largest model whose states fit next to these activations, if it keeps this
// model's proportions.
double largest_model(const engine::Estimate& estimate, double parameters, double available) {
  const auto states = static_cast<double>(estimate.total() - estimate.activations);
  const double left = available - static_cast<double>(estimate.activations);
  return left > 0 ? parameters * left / states : 0;
}

void print_stages(const engine::RunSetup& setup) {
  const config::MeshConfig& mesh = setup.config.mesh;
  const int ranks = mesh.data;
  std::string others;
  if (mesh.sequence > 1) others += fmt::format(" x {} sequence-parallel", mesh.sequence);
  if (mesh.tensor > 1) others += fmt::format(" x {} tensor-parallel", mesh.tensor);
  if (mesh.pipeline > 1)
    others +=
        fmt::format(" x {} pipeline-parallel (the numbers are the first one's)", mesh.pipeline);
  const auto parameters = static_cast<double>(setup.model->parameter_count());
  const config::EngineConfig& engine = setup.config.engine;
  const double node = static_cast<double>(available_host_memory());
  std::cout << fmt::format(
      "{} parameters, {}{}, {} data-parallel rank(s){}, micro-batch {} x {} tokens, accumulation "
      "{}\n\n",
      format_count(parameters), to_string(engine.dtype),
      engine.communication_dtype == engine.dtype
          ? ""
          : fmt::format(" (gradients sent in {})", to_string(engine.communication_dtype)),
      ranks, others, engine.batch.micro, setup.config.data.sequence_length,
      engine.batch.accumulation);
  std::cout << fmt::format("{:>5} {:>12} {:>12} {:>12} {:>12} {:>12} {:>12} {:>12}  {}\n", "stage",
                           "parameters", "gradients", "optimizer", "gathered", "buckets",
                           "activations", "total", "largest model that fits");
  for (int stage = 0; stage <= 3; ++stage) {
    const engine::Estimate e = engine::estimate_run(*setup.model, setup.config, ranks, stage);
    const double largest =
        largest_model(e, parameters, node / (ranks * mesh.sequence * mesh.tensor * mesh.pipeline));
    std::cout << fmt::format("{:>5} {:>12} {:>12} {:>12} {:>12} {:>12} {:>12} {:>12}  {}\n", stage,
                             bytes(e.parameters), bytes(e.gradients), bytes(e.optimizer),
                             bytes(e.gathered), bytes(e.buckets), bytes(e.activations),
                             bytes(e.total()), format_count(largest) + " parameters");
  }
  std::cout << fmt::format(
      "{}\nThe last column divides this node's free {} among the ranks. Offload to host memory or "
      "NVMe is "
      "not available yet: on the CPU everything is in host memory already.\n",
      setup.config.run.checkpoint.asynchronous
          ? "\nThe totals count the copy that run.checkpoint.asynchronous takes.\n"
          : "",
      format_bytes(node));
}

int print_estimate(const Arguments& arguments) {
  if (launcher_rank() != 0) return 0;
  config::ReadOptions options;
  options.set = arguments.run_file.set;
  config::RunConfig config = config::read_run_file(arguments.run_file.file, options);
  const int ranks = ranks_to_look_at(arguments.ranks, config);
  const engine::RunSetup setup = engine::describe_run(ranks, std::move(config));
  print_stages(setup);
  return 0;
}

}  // namespace

void add_estimate(CLI::App& app, Command& command) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* sub = app.add_subcommand(
      "estimate", "Bytes of each rank for every ZeRO stage, and the largest model that fits");
  add_run_file(*sub, arguments->run_file);
  add_ranks(*sub, arguments->ranks, "Ranks to estimate for");
  sub->callback(
      [&command, arguments] { command = [arguments] { return print_estimate(*arguments); }; });
}

}  // namespace tessera::app
