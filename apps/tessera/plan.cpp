// SPDX-License-Identifier: Apache-2.0
// tessera plan: the fastest ways of dividing a run's model over ranks that fit into their memory.
#include <cmath>
#include <iostream>
#include <limits>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/base/error.hpp"
#include "tessera/base/number_format.hpp"
#include "tessera/engine/estimate.hpp"
#include "tessera/engine/run_setup.hpp"
#include "tessera/nn/models/decoder.hpp"
#include "tessera/planning/search.hpp"

#include "apps/tessera/run_file.hpp"
#include "apps/tessera/session.hpp"

namespace tessera::app {
namespace {

using Json = nlohmann::ordered_json;
using planning::Forecast;
using planning::Layout;
using planning::Machine;
using planning::Plan;
using planning::Workload;

constexpr int kAny = std::numeric_limits<int>::max();

struct Arguments {
  RunFileArguments run_file;
  std::vector<int> ranks;
  int nodes = 0;
  std::string memory;
  std::string machine = "h100";
  std::int64_t batch = 0;
  int top = 5;
  bool json = false;
};

bool is_given(const config::RunConfig& config, const std::string& path) {
  using Kind = config::Source::Kind;
  for (const config::Entry& entry : config.entries)
    if (entry.path == path)
      return entry.source.kind == Kind::file || entry.source.kind == Kind::set;
  return false;
}

// A global batch that the run file leaves to the number of ranks grows with it.
std::int64_t batch_of(const Arguments& arguments, const config::RunConfig& config, int ranks) {
  if (arguments.batch > 0) return arguments.batch;
  const std::int64_t batch = config.engine.batch.train;
  if (is_given(config, "engine.train_batch_size")) return batch;
  return batch * std::max<std::int64_t>(1, ranks / config::fewest_ranks(config));
}

Workload workload_of(const config::RunConfig& config) {
  const auto model = nn::make_model(engine::model_json(config), {});
  const nn::DecoderSizes& sizes = dynamic_cast<const nn::Decoder&>(*model).sizes();
  Workload work;
  work.model = {.layers = sizes.layers,
                .hidden = sizes.width,
                .heads = sizes.heads,
                .inner = sizes.inner,
                .vocabulary = sizes.vocabulary,
                .positions = sizes.rotary ? 0 : sizes.positions,
                .kv_heads = sizes.kv_heads,
                .head_dim = sizes.head_dim,
                .gated = sizes.gated,
                .biased = sizes.norm_statistics > 1,
                .tied = sizes.tied};
  work.length = config.data.sequence_length;
  work.dtype = config.engine.dtype;
  work.accumulation_dtype = config.engine.accumulation_dtype;
  work.states = engine::estimate_input(config).states;
  work.dropout = sizes.residual_dropout;
  work.partition_activations = config.engine.partition_activations;
  work.host_activations = config.engine.cpu_checkpointing && config.device != "cpu";
  return work;
}

std::string bytes(double count) {
  return format_bytes(count);
}

// "full", or "full/4" for every fourth block.
std::string recomputation(const Layout& layout) {
  const std::string kind = to_string(layout.recompute);
  return layout.recompute_every == 1 ? kind : fmt::format("{}/{}", kind, layout.recompute_every);
}

std::string plan_row(const Workload& work, const Plan& plan) {
  const Layout& layout = plan.layout;
  const Forecast& found = plan.forecast;
  const planning::TrafficForecast& sent = found.traffic;
  return fmt::format(
      "{:>6} {:>6} {:>8} {:>8} {:>6}  {:>5} {:>6} {:>6}  {:<11} {:>11} {:>7.1f}% {:>11} {:>11} "
      "{:>11} {:>11} {:>9} {:>9} {:>12}\n",
      layout.mesh.ranks(), layout.mesh.data, layout.mesh.pipeline, layout.mesh.sequence,
      fmt::format("{}{}", layout.mesh.tensor, layout.sequence_parallel ? "*" : ""), layout.stage,
      layout.micro_batch, layout.accumulation(work), recomputation(layout),
      bytes(static_cast<double>(found.memory.total())), 100 * found.bubble_fraction,
      bytes(sent.data), bytes(sent.pipeline), bytes(sent.sequence), bytes(sent.tensor),
      fmt::format("{:.3g} s", found.seconds.total()), format_count(found.tokens_per_second),
      format_count(found.flops_per_rank));
}

void print_table(const Workload& work, const std::vector<Plan>& plans) {
  std::cout << fmt::format(
      "{:>6} {:>6} {:>8} {:>8} {:>6}  {:>5} {:>6} {:>6}  {:<11} {:>11} {:>8} {:>47} {:>9} {:>9} "
      "{:>12}\n",
      "", "", "mesh", "", "", "ZeRO", "micro-", "accu-", "", "memory", "",
      "sent by a rank in a step", "", "", "FLOP/s");
  std::cout << fmt::format(
      "{:>6} {:>6} {:>8} {:>8} {:>6}  {:>5} {:>6} {:>6}  {:<11} {:>11} {:>8} {:>11} {:>11} {:>11} "
      "{:>11} {:>9} {:>9} {:>12}\n",
      "ranks", "data", "pipeline", "sequence", "tensor", "stage", "batch", "mul.", "recompute",
      "of a rank", "bubble", "data", "pipeline", "sequence", "tensor", "step", "tokens/s",
      "of a rank");
  for (const Plan& plan : plans) std::cout << plan_row(work, plan);
  if (std::ranges::any_of(plans, [](const Plan& plan) { return plan.layout.sequence_parallel; }))
    std::cout << "* with mesh.sequence_parallel\n";
}

void print_run_file(const Layout& layout) {
  const MeshShape& mesh = layout.mesh;
  std::cout << "\nThe first as lines of the run file:\n\n";
  std::cout << fmt::format("mesh: {{data: auto, pipeline: {}, sequence: {}, tensor: {}{}}}\n",
                           mesh.pipeline, mesh.sequence, mesh.tensor,
                           layout.sequence_parallel ? ", sequence_parallel: true" : "");
  const int every = layout.recompute_every;
  std::cout << fmt::format("run: {{recompute: {}{}}}\n", to_string(layout.recompute),
                           every > 1 ? fmt::format(", recompute_every: {}", every) : "");
  std::cout << fmt::format(
      "engine: {{train_micro_batch_size_per_gpu: {}, zero_optimization: {{stage: {}}}}}\n",
      layout.micro_batch, layout.stage);
}

Json plan_json(const Workload& work, const Plan& plan) {
  const Layout& layout = plan.layout;
  const Forecast& found = plan.forecast;
  const planning::TimeForecast& time = found.seconds;
  return {{"mesh",
           {{"data", layout.mesh.data},
            {"pipeline", layout.mesh.pipeline},
            {"sequence", layout.mesh.sequence},
            {"tensor", layout.mesh.tensor}}},
          {"sequence_parallel", layout.sequence_parallel},
          {"stage", layout.stage},
          {"micro_batch", layout.micro_batch},
          {"accumulation", layout.accumulation(work)},
          {"recompute", to_string(layout.recompute)},
          {"recompute_every", layout.recompute_every},
          {"memory_bytes", found.memory.total()},
          {"state_bytes", found.memory.states},
          {"activation_bytes", found.memory.activations},
          {"bubble", found.bubble_fraction},
          {"sent_bytes",
           {{"data", found.traffic.data},
            {"pipeline", found.traffic.pipeline},
            {"sequence", found.traffic.sequence},
            {"tensor", found.traffic.tensor}}},
          {"seconds",
           {{"total", time.total()},
            {"compute", time.compute},
            {"tensor", time.tensor},
            {"sequence", time.sequence},
            {"pipeline", time.pipeline},
            {"bubble", time.bubble},
            {"data", time.data},
            {"optimizer", time.optimizer}}},
          {"tokens_per_second", found.tokens_per_second},
          {"flops_per_rank", found.flops_per_rank}};
}

[[noreturn]] void fail_to_fit(const planning::SearchResult& found, const Workload& work, int ranks,
                              double memory) {
  const Plan& smallest = found.smallest;
  TESSERA_CHECK(smallest.layout.micro_batch > 0, Code::invalid_config,
                fmt::format("{} sequences of a step cannot be divided over {} ranks: choose a "
                            "batch with more divisors (--batch)",
                            work.batch, ranks));
  fail(Code::invalid_config,
       fmt::format("no way of dividing this model over {} ranks fits into {} of each: the smallest "
                   "needs {} ({}, stage {}, micro-batch {}, recompute {}); give more ranks or a "
                   "shorter data.sequence_length",
                   ranks, bytes(memory),
                   bytes(static_cast<double>(smallest.forecast.memory.total())),
                   smallest.layout.mesh.to_string(), smallest.layout.stage,
                   smallest.layout.micro_batch, recomputation(smallest.layout)));
}

// With several counts the best plan of each, else the best few.
std::vector<Plan> plans_for(const Arguments& arguments, const config::RunConfig& config,
                            const Machine& machine, std::int64_t memory, Workload& work) {
  std::vector<Plan> plans;
  for (const int ranks : arguments.ranks) {
    work.batch = batch_of(arguments, config, ranks);
    auto found = planning::search_plans(work, machine, ranks, memory, {kAny, kAny, kAny, kAny});
    if (found.plans.empty() && arguments.ranks.size() > 1) continue;
    if (found.plans.empty()) fail_to_fit(found, work, ranks, static_cast<double>(memory));
    const std::size_t most =
        arguments.ranks.size() > 1 ? 1 : static_cast<std::size_t>(arguments.top);
    found.plans.resize(std::min(found.plans.size(), most));
    plans.insert(plans.end(), found.plans.begin(), found.plans.end());
  }
  TESSERA_CHECK(!plans.empty(), Code::invalid_config,
                fmt::format("with none of these rank counts the model fits into {} of each rank",
                            bytes(static_cast<double>(memory))));
  return plans;
}

int print_plans(Arguments& arguments) {
  if (launcher_rank() != 0) return 0;
  config::ReadOptions options;
  options.set = arguments.run_file.set;
  config::RunConfig config = config::read_run_file(arguments.run_file.file, options);
  if (arguments.ranks.empty()) arguments.ranks = {ranks_to_look_at(0, config)};
  const int fewest = config::fewest_ranks(config);
  config = engine::describe_run(fewest, std::move(config)).config;
  Machine machine = planning::find_machine(arguments.machine);
  if (arguments.nodes > 0)
    machine.ranks_per_node =
        std::max(1, (arguments.ranks.front() + arguments.nodes - 1) / arguments.nodes);
  const std::int64_t memory =
      arguments.memory.empty() ? machine.memory_bytes : parse_bytes(arguments.memory);
  Workload work = workload_of(config);
  const std::vector<Plan> plans = plans_for(arguments, config, machine, memory, work);
  if (arguments.json) {
    Json rows = Json::array();
    for (const Plan& plan : plans) rows.push_back(plan_json(work, plan));
    std::cout << rows.dump(2) << '\n';
    return 0;
  }
  std::cout << fmt::format(
      "{} parameters in {}, {} sequences of {} tokens a step; {}, {} ranks a node, {} of a "
      "rank\n\n",
      format_count(static_cast<double>(work.model.parameters())), to_string(work.dtype), work.batch,
      work.length, machine.name, machine.ranks_per_node, bytes(static_cast<double>(memory)));
  print_table(work, plans);
  if (arguments.ranks.size() == 1) print_run_file(plans.front().layout);
  return 0;
}

}  // namespace

void add_plan(CLI::App& app, Command& command) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* sub = app.add_subcommand(
      "plan", "Search meshes, stages, micro-batches and recomputation: the fastest that fit");
  sub->footer(
      "Predictions come from a few numbers of the machine (doc/scaling.md): of a GPU by name, or\n"
      "measured where the run will be:\n"
      "  mpirun -n 8 tessera env --calibrate machine.json\n"
      "  tessera plan run.yaml --ranks 8 --machine machine.json\n"
      "  tessera plan run.yaml --ranks 16,64,256,1024,4096,16384     the best of each, a forecast");
  add_run_file(*sub, arguments->run_file);
  sub->add_option("--ranks", arguments->ranks,
                  "Ranks to plan for; several, with commas, compare (default: as many as are "
                  "started, or the fewest that the run file takes)")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->check(CLI::PositiveNumber)
      ->type_name("N");
  sub->add_option("--memory", arguments->memory,
                  "Memory of a rank, as 80GB or 64GiB (default: the machine's)");
  sub->add_option("--nodes", arguments->nodes, "Nodes of the ranks (default: as the machine has)")
      ->check(CLI::PositiveNumber);
  sub->add_option("--machine", arguments->machine,
                  "a100, h100, h200, or a file of `tessera env --calibrate`")
      ->capture_default_str();
  sub->add_option("--batch", arguments->batch,
                  "Sequences of a step over all ranks (default: the run file's)")
      ->check(CLI::PositiveNumber);
  sub->add_option("--top", arguments->top, "Plans to show")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  sub->add_flag("--json", arguments->json, "Print JSON, with the parts of the time");
  sub->callback(
      [&command, arguments] { command = [arguments] { return print_plans(*arguments); }; });
}

}  // namespace tessera::app
