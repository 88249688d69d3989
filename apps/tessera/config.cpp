// SPDX-License-Identifier: Apache-2.0
// tessera config: checks a run file and prints every value with where it came from.
#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "tessera/base/cpu_features.hpp"
#include "tessera/base/error.hpp"
#include "tessera/comm/mesh_drawing.hpp"
#include "tessera/config/report.hpp"
#include "tessera/engine/options.hpp"
#include "tessera/engine/run_setup.hpp"

#include "apps/tessera/run_file.hpp"
#include "apps/tessera/session.hpp"

namespace tessera::app {
namespace {

struct Arguments {
  RunFileArguments run_file;
  int ranks = 0;
  int ranks_per_node = 0;  // 0: all on one
  bool json = false;
  bool markdown = false;
};

NodeMap nodes_of(const Arguments& arguments, const config::RunConfig& config) {
  TESSERA_CHECK(!config.comm.nodes || arguments.ranks_per_node == 0, Code::invalid_config,
                "comm.nodes says which ranks share a node: leave --ranks-per-node out");
  if (config.comm.nodes) return NodeMap::from_lists(*config.comm.nodes, arguments.ranks);
  NodeMap nodes = NodeMap::single(arguments.ranks);
  if (arguments.ranks_per_node > 0)
    for (int r = 0; r < arguments.ranks; ++r)
      nodes.node_of[static_cast<std::size_t>(r)] = r / arguments.ranks_per_node;
  return nodes;
}

// Which rank sits where, and what would be better elsewhere.
std::string describe_mesh(const Arguments& arguments, const config::RunConfig& config) {
  const config::MeshConfig& mesh = config.mesh;
  const MeshPlan plan({mesh.pipeline, mesh.data, mesh.sequence, mesh.tensor},
                      nodes_of(arguments, config));
  const bool assumed = !config.comm.nodes && arguments.ranks_per_node == 0;
  std::string text =
      fmt::format("mesh: {} = {} rank(s) on {} node(s){}, as rank:coordinates\n{}",
                  plan.shape().to_string(), arguments.ranks, plan.nodes().nodes(),
                  assumed ? " (assumed, see --ranks-per-node)" : "", draw_mesh(plan));
  for (const std::string& warning : plan.warnings()) text += fmt::format("warning: {}\n", warning);
  return text;
}

int print_config(Arguments& arguments) {
  if (launcher_rank() != 0) return 0;
  if (arguments.markdown) {
    std::cout << config::configuration_markdown();
    return 0;
  }
  config::ReadOptions options;
  options.set = arguments.run_file.set;
  options.allow_bare_engine = true;
  config::RunConfig config = config::read_run_file(arguments.run_file.file, options);
  arguments.ranks = ranks_to_look_at(arguments.ranks, config);
  if (config.bare_engine) {
    config::resolve(config, {arguments.ranks, has_bf16_instructions(), {}, {}, {}});
  } else {
    config = engine::describe_run(arguments.ranks, std::move(config)).config;
    engine::engine_options(config);  // says what no part can do
  }
  if (arguments.json)
    std::cout << config::to_json(config);
  else
    std::cout << config::print_resolved(config) << "\n" << describe_mesh(arguments, config);
  return 0;
}

}  // namespace

void add_config(CLI::App& app, Command& command) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* sub = app.add_subcommand(
      "config", "Check a run file or a DeepSpeed configuration; show every value and its source");
  auto* file =
      sub->add_option("run_file", arguments->run_file.file, "Run file")->type_name("RUN.yaml");
  sub->add_option("--set", arguments->run_file.set, "Override a value")
      ->type_name("path=value")
      ->allow_extra_args(false);
  add_ranks(*sub, arguments->ranks, "Ranks to resolve for");
  auto* per_node = sub->add_option("--ranks-per-node", arguments->ranks_per_node,
                                   "Draw the mesh over nodes with that many ranks each (default: "
                                   "one node, or comm.nodes)")
                       ->check(CLI::PositiveNumber);
  sub->add_flag("--json", arguments->json, "Print JSON: {path: {value, source}}")
      ->excludes(per_node);
  sub->add_flag("--markdown", arguments->markdown, "Print doc/configuration.md")->group("");
  sub->callback([&command, arguments, file] {
    if (file->empty() && !arguments->markdown) throw CLI::RequiredError("run_file");
    command = [arguments] { return print_config(*arguments); };
  });
}

}  // namespace tessera::app
