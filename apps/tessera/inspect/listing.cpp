// SPDX-License-Identifier: Apache-2.0
#include "apps/tessera/inspect/listing.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "tessera/base/number_format.hpp"

#include "apps/tessera/inspect/statistics.hpp"

namespace tessera::app {
namespace {

constexpr const char* kStatistics[] = {"min", "max", "mean", "rms"};

Json tensor_json(const Contents& contents, const TensorEntry& entry, bool statistics) {
  Json tensor = {{"shape", entry.shape.sizes()}, {"dtype", entry.type}, {"bytes", entry.bytes}};
  if (!statistics) return tensor;
  const Statistics found = measure(contents, entry);
  tensor["min"] = found.min;
  tensor["max"] = found.max;
  tensor["mean"] = found.mean;
  tensor["rms"] = found.rms;
  tensor["nonfinite"] = found.nonfinite;
  return tensor;
}

void add_to(Json& sum, const TensorEntry& entry, const Json& tensor) {
  const auto add = [&](const char* key, std::int64_t value) {
    sum[key] = sum.value(key, std::int64_t{0}) + value;
  };
  add("tensors", 1);
  add("elements", entry.shape.numel());
  add("bytes", entry.bytes);
  if (tensor.contains("nonfinite")) add("nonfinite", tensor["nonfinite"].get<std::int64_t>());
}

std::string number_text(const Json& value) {
  return value.is_number() && std::isfinite(value.get<double>())
             ? fmt::format("{:.4g}", value.get<double>())
             : "-";
}

std::string sum_text(const Json& sum) {
  const auto number = [&](const char* key) { return sum[key].get<double>(); };
  return fmt::format("{} tensors, {} elements, {}", sum["tensors"].get<std::int64_t>(),
                     format_count(number("elements")), format_bytes(number("bytes")));
}

// One line a fact; long texts are left to --json.
std::string facts_text(const Json& listing) {
  std::string text;
  for (const auto& [key, value] : listing.items()) {
    if (key == "tensors" && value.is_object()) break;
    if (key == "config") continue;
    std::string shown = value.is_string() ? value.get<std::string>() : value.dump();
    if (key == "file_bytes") shown = format_bytes(value.get<double>());
    if (key == "state") {
      shown.clear();
      for (const auto& [name, content] : value.items()) shown += (shown.empty() ? "" : ", ") + name;
    }
    text += fmt::format("{:<18} {}\n", key, shown);
  }
  return text;
}

struct Columns {
  std::size_t name = 4, shape = 5;
  bool statistics = false;
};

std::string name_in_group(const std::string& path, const std::string& group) {
  return path.starts_with(group + "/") ? path.substr(group.size() + 1) : path;
}

std::string tensor_line(const std::string& name, const Json& tensor, const Columns& columns) {
  const Shape shape(tensor["shape"].get<std::vector<std::int64_t>>());
  std::string line = fmt::format(
      "  {:<{}}  {:<{}}  {:<6} {:>10}", name, columns.name, shape.to_string(), columns.shape,
      tensor["dtype"].get<std::string>(), format_bytes(tensor["bytes"].get<double>()));
  if (columns.statistics)
    for (const char* key : kStatistics) line += fmt::format(" {:>11}", number_text(tensor[key]));
  return line + '\n';
}

std::string head_line(const std::string& group, const Columns& columns) {
  std::string line = fmt::format("\n{:<{}}  {:<{}}  {:<6} {:>10}", group, columns.name + 2, "shape",
                                 columns.shape, "type", "size");
  if (columns.statistics)
    for (const char* key : kStatistics) line += fmt::format(" {:>11}", key);
  return line + '\n';
}

}  // namespace

Json list_contents(const Contents& contents, bool statistics) {
  Json listing = contents.facts();
  if (contents.tensors().empty()) return listing;
  Json tensors = Json::object(), groups = Json::object(), total = Json::object();
  for (const TensorEntry& entry : contents.tensors()) {
    Json tensor = tensor_json(contents, entry, statistics);
    tensor["group"] = entry.group;
    Json& group = groups[entry.group];
    if (group.is_null()) group = Json::object();
    add_to(group, entry, tensor);
    add_to(total, entry, tensor);
    tensors[entry.path] = std::move(tensor);
  }
  listing["tensors"] = std::move(tensors);
  listing["groups"] = std::move(groups);
  listing["total"] = std::move(total);
  return listing;
}

std::string format_listing(const Json& listing) {
  std::string text = facts_text(listing);
  if (!listing.contains("groups")) return text;
  Columns columns;
  for (const auto& [path, tensor] : listing["tensors"].items()) {
    columns.name = std::max(columns.name, name_in_group(path, tensor["group"]).size());
    const Shape shape(tensor["shape"].get<std::vector<std::int64_t>>());
    columns.shape = std::max(columns.shape, shape.to_string().size());
    columns.statistics |= tensor.contains("rms");
  }
  std::string group;
  const auto close_group = [&] {
    if (!group.empty()) text += fmt::format("  {}\n", sum_text(listing["groups"][group]));
  };
  for (const auto& [path, tensor] : listing["tensors"].items()) {
    if (tensor["group"] != group) {
      close_group();
      group = tensor["group"];
      text += head_line(group, columns);
    }
    text += tensor_line(name_in_group(path, group), tensor, columns);
  }
  close_group();
  const Json& total = listing["total"];
  text += fmt::format("\ntotal: {}\n", sum_text(total));
  if (total.contains("nonfinite"))
    text +=
        fmt::format("{} elements are NaN or infinite\n", total["nonfinite"].get<std::int64_t>());
  for (const auto& [path, tensor] : listing["tensors"].items())
    if (tensor.value("nonfinite", std::int64_t{0}) > 0)
      text += fmt::format("  {}: {}\n", path, tensor["nonfinite"].get<std::int64_t>());
  return text;
}

}  // namespace tessera::app
