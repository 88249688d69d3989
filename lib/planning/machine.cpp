// SPDX-License-Identifier: Apache-2.0
#include "tessera/planning/machine.hpp"

#include <cmath>
#include <filesystem>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/base/error.hpp"
#include "tessera/base/file.hpp"

namespace tessera::planning {
namespace {

using Json = nlohmann::ordered_json;

// Calls `visit(key, value)` for every number of a machine.
template <typename Value, typename Visit>
void for_each_number(Value& machine, Visit&& visit) {
  visit("flops_fp32", machine.flops_fp32);
  visit("flops_half", machine.flops_half);
  visit("half_width", machine.half_width);
  visit("memory_bandwidth", machine.memory_bandwidth);
  visit("node_bandwidth", machine.node.bandwidth);
  visit("node_latency", machine.node.latency);
  visit("network_bandwidth", machine.network.bandwidth);
  visit("network_latency", machine.network.latency);
}

// Of GPUs with NVLink in a node of eight and one InfiniBand port each. A product reaches 78 % of
// the peak at best on an A100 and 75 % on an H100, copies 80 % of the memory's bandwidth,
// collectives 80 % of the links'.
Machine gpu(const std::string& name, double half, double fp32, double memory, std::int64_t bytes,
            double nvlink, double port) {
  Machine machine;
  machine.name = name;
  machine.flops_fp32 = fp32;
  machine.flops_half = half;
  machine.half_width = 150;
  machine.memory_bandwidth = 0.8 * memory;
  machine.memory_bytes = bytes;
  machine.ranks_per_node = 8;
  machine.node = {0.8 * nvlink, 10e-6};
  machine.network = {0.85 * port, 20e-6};
  machine.overlaps = true;
  return machine;
}

template <typename Type>
Type value_of(const Json& json, const std::string& key, const std::string& file) {
  TESSERA_CHECK(json.contains(key), Code::invalid_config,
                fmt::format("{}: '{}' is missing; `tessera env --calibrate FILE` writes all of it",
                            file, key));
  try {
    return json.at(key).get<Type>();
  } catch (const nlohmann::json::exception&) {
    fail(Code::invalid_config,
         fmt::format("{}: '{}' cannot be {}", file, key, json.at(key).dump()));
  }
}

Machine read_machine(const std::string& file) {
  const Json json = Json::parse(read_text(file), nullptr, false);
  TESSERA_CHECK(json.is_object(), Code::invalid_config,
                fmt::format("{} is not what `tessera env --calibrate FILE` writes", file));
  Machine machine;
  machine.name = value_of<std::string>(json, "name", file);
  for_each_number(machine, [&](const char* key, double& value) {
    value = value_of<double>(json, key, file);
    const bool latency = std::string(key).ends_with("latency") || std::string(key) == "half_width";
    TESSERA_CHECK(std::isfinite(value) && (value > 0 || (latency && value == 0)),
                  Code::invalid_config, fmt::format("{}: '{}' cannot be {}", file, key, value));
  });
  machine.memory_bytes = value_of<std::int64_t>(json, "memory_bytes", file);
  machine.ranks_per_node = value_of<int>(json, "ranks_per_node", file);
  machine.overlaps = value_of<bool>(json, "overlaps", file);
  TESSERA_CHECK(machine.ranks_per_node > 0 && machine.memory_bytes > 0, Code::invalid_config,
                fmt::format("{}: 'ranks_per_node' and 'memory_bytes' must be positive", file));
  return machine;
}

}  // namespace

double Machine::flops(DType dtype, double width) const {
  const double best = dtype == DType::fp32 ? flops_fp32 : flops_half;
  return best * width / (width + half_width);
}

const std::vector<Machine>& known_machines() {
  constexpr std::int64_t kGB = 1'000'000'000;
  static const std::vector<Machine> machines = {
      gpu("a100", 0.78 * 312e12, 19.5e12, 2.04e12, 80 * kGB, 300e9, 25e9),
      gpu("h100", 0.75 * 989e12, 60e12, 3.35e12, 80 * kGB, 450e9, 50e9),
      gpu("h200", 0.75 * 989e12, 60e12, 4.8e12, 141 * kGB, 450e9, 50e9)};
  return machines;
}

Machine find_machine(const std::string& name_or_file) {
  std::string names;
  for (const Machine& machine : known_machines()) {
    if (machine.name == name_or_file) return machine;
    names += (names.empty() ? "" : ", ") + machine.name;
  }
  TESSERA_CHECK(std::filesystem::exists(name_or_file), Code::invalid_argument,
                fmt::format("there is no machine or file '{}': give {}, or a file that `tessera "
                            "env --calibrate FILE` wrote on the machine",
                            name_or_file, names));
  return read_machine(name_or_file);
}

std::string to_json(const Machine& machine) {
  Json json;
  json["name"] = machine.name;
  for_each_number(machine, [&](const char* key, double value) { json[key] = value; });
  json["memory_bytes"] = machine.memory_bytes;
  json["ranks_per_node"] = machine.ranks_per_node;
  json["overlaps"] = machine.overlaps;
  return json.dump(2) + "\n";
}

}  // namespace tessera::planning
