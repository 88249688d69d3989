// SPDX-License-Identifier: Apache-2.0
#include "tessera/engine/summary.hpp"

#include <algorithm>
#include <array>
#include <sstream>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/base/cpu_features.hpp"
#include "tessera/base/file.hpp"
#include "tessera/base/number_format.hpp"
#include "tessera/checkpoint/checksum.hpp"
#include "tessera/engine/device_choice.hpp"
#include "tessera/parallel/model_state.hpp"

#include "engine/event_log.hpp"

namespace tessera::engine {
namespace {

using Json = nlohmann::ordered_json;

struct StepRecords {
  double seconds = 0;
  double median_seconds = 0;
  double tokens_per_second = 0;  // of the median step
  Json final_loss;
  Json loss_scale;  // of the last step
  std::int64_t skipped = 0;
};

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

StepRecords read_steps(const RunFolder& folder) {
  StepRecords records;
  if (!std::filesystem::exists(folder.metrics())) return records;
  std::vector<double> seconds, rates;
  std::istringstream lines(read_text(folder.metrics()));
  for (std::string line; std::getline(lines, line);) {
    const Json entry = Json::parse(line, nullptr, false);
    if (entry.is_discarded() || !entry.contains("seconds")) continue;
    seconds.push_back(entry["seconds"]);
    rates.push_back(entry["tokens_per_second"]);
    records.seconds += seconds.back();
    records.final_loss = entry["loss"];
    records.loss_scale = entry.value("loss_scale", 1.0);
    records.skipped += entry.value("skipped", false) ? 1 : 0;
  }
  records.median_seconds = median(seconds);
  records.tokens_per_second = median(rates);
  return records;
}

Json units_json(const zero::FlatLayout& layout) {
  Json units = Json::array();
  for (const zero::FlatUnit& unit : layout.units())
    units.push_back({{"name", unit.name}, {"elements", unit.elements}, {"padded", unit.padded}});
  return units;
}

// Of all ranks of a pipeline, one after the other.
Json layout_json(Engine& engine) {
  Json units = units_json(engine.optimizer().layout());
  if (Communicator* const line = engine.model().pipeline().group) {
    const std::string mine = units.dump();
    units = Json::array();
    for (const std::string& text : line->all_gather_text(mine))
      for (Json& unit : Json::parse(text)) units.push_back(std::move(unit));
  }
  return {{"alignment", zero::kAlignment}, {"units", units}};
}

void add_traffic(Json& sum, const Json& counts) {
  for (const auto& [operation, count] : counts.items()) {
    Json& total = sum[operation];
    if (total.is_null()) total = {{"bytes", 0}, {"messages", 0}};
    for (const char* what : {"bytes", "messages"})
      total[what] = total[what].get<std::int64_t>() + count[what].get<std::int64_t>();
  }
}

// What all ranks sent, by operation: in all, and over the groups of each axis.
Json traffic_json(Communicator& world, const std::vector<Communicator*>& groups) {
  Json none;
  for (const char* operation : {"all_reduce", "reduce_scatter", "all_gather", "scalars"})
    none[operation] = {{"bytes", 0}, {"messages", 0}};
  Json mine;
  for (Communicator* group : groups) {
    Json& counts = mine[group->name()] = Json::object();
    for (const auto& [operation, count] : group->traffic().counts())
      counts[operation] = {{"bytes", count.bytes}, {"messages", count.messages}};
  }
  Json traffic = none, axes;
  for (Communicator* group : groups) axes[group->name()] = none;
  for (const std::string& text : world.all_gather_text(mine.dump())) {
    const Json theirs = Json::parse(text);
    for (const auto& [axis, counts] : theirs.items()) {
      add_traffic(traffic, counts);
      add_traffic(axes[axis], counts);
    }
  }
  traffic["axes"] = axes;
  return traffic;
}

// The largest rank's peak for each purpose, in the memory of the device that trains.
Json memory_json(Communicator& world, Device device) {
  const MemoryLedger& ledger = memory_ledger(device);
  constexpr std::array reported = {Purpose::parameters,  Purpose::gradients, Purpose::optimizer,
                                   Purpose::activations, Purpose::buckets,   Purpose::gathered,
                                   Purpose::snapshot,    Purpose::workspace};
  std::vector<double> peaks;
  for (const Purpose purpose : reported) peaks.push_back(static_cast<double>(ledger.peak(purpose)));
  peaks.push_back(static_cast<double>(ledger.peak_total()));
  world.all_reduce_scalars(peaks, Reduction::max);
  Json memory;
  for (std::size_t i = 0; i < reported.size(); ++i)
    memory[to_string(reported[i])] = static_cast<std::int64_t>(peaks[i]);
  memory["total"] = static_cast<std::int64_t>(peaks.back());
  return memory;
}

Json nodes_json(const NodeMap& nodes) {
  Json lists = Json::array();
  for (int node = 0; node < nodes.nodes(); ++node) lists.push_back(nodes.ranks_of(node));
  return lists;
}

}  // namespace

std::string make_summary(Runtime& runtime, Engine& engine, const RunFolder& folder,
                         const SummaryInput& input) {
  Communicator& world = runtime.world();
  Communicator& group = engine.group();
  const Traffic::Pause pause(world.traffic());
  const Device device = engine.stream().device();
  const Json traffic = traffic_json(world, engine.communicators());
  const Json memory = memory_json(world, device);
  const std::uint64_t checksum = parallel::weights_checksum(engine.model(), engine.optimizer());
  const std::int64_t flops = world.all_reduce_scalar(input.step_flops, Reduction::sum);
  const StepRecords records = read_steps(folder);

  Json summary;
  summary["ranks"] = world.size();
  summary["mesh"] = {{"pipeline", engine.model().pipeline().size},
                     {"data", engine.data_ranks()},
                     {"sequence", engine.model().options().sequence.size},
                     {"tensor", engine.model().options().tensor.size},
                     {"expert", 1}};
  summary["nodes"] = nodes_json(world.nodes());
  summary["threads_per_rank"] = input.threads;
  summary["isa"] = simd_name();
  summary["device"] = describe_device(device);
  summary["transport"] = group.transport();
  if (!device.is_cpu()) summary["device_transport"] = world.device_transport();
  summary["parameters"] = engine.model().parameter_count();
  summary["layout"] = layout_json(engine);
  summary["steps"] = engine.step();
  summary["skipped_steps"] = records.skipped;
  summary["loss_scale"] = records.loss_scale;
  summary["tokens"] = engine.tokens();
  summary["seconds"] = records.seconds;
  summary["tokens_per_second"] = records.tokens_per_second;
  summary["final_loss"] = records.final_loss;
  summary["validation_loss"] = input.validation_loss ? Json(*input.validation_loss) : Json();
  summary["weights_checksum"] = checkpoint::format_checksum(checksum);
  summary["traffic"] = traffic;
  summary["memory"] = memory;
  summary["model_flops"] = flops;
  summary["flops_per_second"] =
      records.median_seconds > 0 ? static_cast<double>(flops) / records.median_seconds : 0.0;
  summary["checkpoints"] = count_saves(folder);
  return summary.dump(2) + "\n";
}

std::string describe_summary(const std::string& text) {
  const Json summary = Json::parse(text);
  const auto number = [&](const char* key) {
    return summary[key].is_number() ? summary[key].get<double>() : 0.0;
  };
  std::string lines = fmt::format(
      "{} parameters on {} rank(s), {} steps, {} tokens in {}\n"
      "median {} tokens/s, {}FLOP/s; peak memory of a rank {}\n",
      format_count(number("parameters")), summary["ranks"].get<int>(),
      summary["steps"].get<std::int64_t>(), format_count(number("tokens")),
      format_duration(number("seconds")), format_count(number("tokens_per_second")),
      format_count(number("flops_per_second")),
      format_bytes(summary["memory"]["total"].get<double>()));
  if (summary["final_loss"].is_number())
    lines += fmt::format("training loss {:.4f}", number("final_loss"));
  if (summary["validation_loss"].is_number())
    lines += fmt::format(", validation loss {:.4f} nats per token", number("validation_loss"));
  return lines;
}

}  // namespace tessera::engine
