// SPDX-License-Identifier: Apache-2.0
#include "apps/tessera/inspect/compare.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <vector>

#include <fmt/format.h>

#include "tessera/base/number_format.hpp"
#include "tessera/nn/model.hpp"

#include "apps/tessera/inspect/statistics.hpp"

namespace tessera::app {
namespace {

struct Difference {
  std::int64_t elements = 0;  // that differ
  std::int64_t first = -1;    // flat index
  double first_a = 0, first_b = 0;
  double absolute = 0, relative = 0;  // the largest
};

bool same_bits(double a, double b) {
  return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b) ||
         (std::isnan(a) && std::isnan(b));
}

void count(Difference& difference, std::int64_t index, double a, double b) {
  if (same_bits(a, b)) return;
  if (difference.elements++ == 0) {
    difference.first = index;
    difference.first_a = a;
    difference.first_b = b;
  }
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const bool finite = std::isfinite(a) && std::isfinite(b);
  const double absolute = finite ? std::abs(a - b) : infinity;
  const double larger = std::max(std::abs(a), std::abs(b));
  difference.absolute = std::max(difference.absolute, absolute);
  if (absolute > 0)
    difference.relative = std::max(difference.relative, finite ? absolute / larger : infinity);
}

Difference subtract(const Contents& a, const TensorEntry& in_a, const Contents& b,
                    const TensorEntry& in_b) {
  Difference difference;
  std::vector<double> x, y;
  for_each_block(in_a.shape.numel(), [&](std::int64_t begin, std::int64_t size) {
    x.resize(static_cast<std::size_t>(size));
    y.resize(static_cast<std::size_t>(size));
    a.read(in_a, begin, size, x.data());
    b.read(in_b, begin, size, y.data());
    for (std::int64_t i = 0; i < size; ++i)
      count(difference, begin + i, x[static_cast<std::size_t>(i)], y[static_cast<std::size_t>(i)]);
  });
  return difference;
}

Json index_in(const Shape& shape, std::int64_t flat) {
  std::vector<std::int64_t> index(static_cast<std::size_t>(shape.rank()));
  for (int i = shape.rank() - 1; i >= 0; --i) {
    index[static_cast<std::size_t>(i)] = flat % shape[i];
    flat /= shape[i];
  }
  return index;
}

// Infinities have no word in JSON.
Json number(double value) {
  if (std::isfinite(value)) return value;
  return std::isnan(value) ? "NaN" : value > 0 ? "infinite" : "-infinite";
}

// null if the two are equal.
Json tensor_difference(const Contents& a, const TensorEntry& in_a, const Contents& b,
                       const TensorEntry& in_b) {
  Json told;
  if (in_a.shape != in_b.shape) {
    told["shape"] = {in_a.shape.sizes(), in_b.shape.sizes()};
    return told;
  }
  const Difference found = subtract(a, in_a, b, in_b);
  if (found.elements > 0) {
    told["elements"] = in_a.shape.numel();
    told["differing"] = found.elements;
    told["max_absolute"] = number(found.absolute);
    told["max_relative"] = number(found.relative);
    told["first"] = index_in(in_a.shape, found.first);
    told["first_values"] = {number(found.first_a), number(found.first_b)};
  }
  return told;
}

/// What of `b` corresponds to what of `a`: by path, or by the names that a model folder may use.
class Matching {
 public:
  Matching(const Contents& a, const Contents& b)
      : only_parameters_(a.is_checkpoint() != b.is_checkpoint()) {
    // The checkpoint knows its model, the model the names that folders use.
    const Contents& checkpoint = a.is_checkpoint() ? a : b;
    if (only_parameters_) model_ = nn::make_model(checkpoint.facts()["model"].dump(), {});
    for (const TensorEntry& entry : b.tensors())
      if (counts(entry)) left_[key(entry)] = &entry;
  }

  /// Optimizer states have no counterpart in a model folder, nor buffers in a checkpoint.
  bool counts(const TensorEntry& entry) const {
    return !only_parameters_ || (entry.group == "parameters" && !model_->ignores(entry.path));
  }
  /// Takes the counterpart of an entry of `a`; null if there is none.
  const TensorEntry* take(const TensorEntry& entry) {
    const auto found = left_.find(key(entry));
    if (found == left_.end()) return nullptr;
    const TensorEntry* taken = found->second;
    left_.erase(found);
    return taken;
  }
  const std::map<std::string, const TensorEntry*>& left() const { return left_; }

 private:
  // The model's own name of a parameter, whichever of its names is used.
  std::string key(const TensorEntry& entry) const {
    if (!only_parameters_) return entry.path;
    for (const nn::NamedParameter& named : model_->parameters())
      for (const std::string& name : model_->names_in_files(named.name))
        if (name == entry.name) return named.name;
    return entry.name;
  }

  bool only_parameters_;
  std::unique_ptr<nn::Model> model_;
  std::map<std::string, const TensorEntry*> left_;
};

// The leaves at which two JSON values differ: [{"key": "model.n_embd", "a": 32, "b": 64}]. Without
// `all`, only what both have.
void add_differences(const std::string& key, const Json& a, const Json& b, bool all, Json& told) {
  if (a == b) return;
  if (!a.is_object() || !b.is_object()) {
    told.push_back({{"key", key}, {"a", a}, {"b", b}});
    return;
  }
  for (const auto& [name, value] : a.items())
    if (all || b.contains(name))
      add_differences(key + "." + name, value, b.value(name, Json()), all, told);
  for (const auto& [name, value] : b.items())
    if (all && !a.contains(name)) add_differences(key + "." + name, Json(), value, all, told);
}

Json header_differences(const Contents& a, const Contents& b) {
  Json told = Json::array();
  // Another program's config.json says more than ours.
  const bool both = a.is_checkpoint() && b.is_checkpoint();
  for (const char* key :
       {"format_version", "library_version", "step", "samples", "tokens", "model", "state"})
    if (a.facts().contains(key) && b.facts().contains(key))
      add_differences(key, a.facts()[key], b.facts()[key], both, told);
  if (both && a.facts()["config"] != b.facts()["config"])
    told.push_back({{"key", "config"}, {"a", "differs"}, {"b", "differs"}});
  return told;
}

bool decides(const std::string& key) {
  return key == "step" || key == "samples" || key == "tokens" || key.starts_with("model");
}

Json name_of(const Contents& contents) {
  Json name;
  for (const char* key : {"kind", "file", "step"})
    if (contents.facts().contains(key)) name[key] = contents.facts()[key];
  return name;
}

std::string plain(const Json& value) {
  if (value.is_null()) return "absent";
  return value.is_string() ? value.get<std::string>() : value.dump();
}

std::string short_number(const Json& value) {
  return value.is_number() ? fmt::format("{:.5g}", value.get<double>()) : plain(value);
}

// A table: how many elements differ, by how much, and where first.
std::string differences_table(const Json& tensors) {
  std::size_t width = 6;
  for (const auto& [name, told] : tensors.items()) width = std::max(width, name.size());
  std::string text = fmt::format("  {:<{}}  {:>12} {:>12} {:>11} {:>11}  {}\n", "tensor", width,
                                 "differing", "of", "largest", "relative", "first: A, B");
  for (const auto& [name, told] : tensors.items()) {
    if (told.contains("shape"))
      text += fmt::format("  {:<{}}  shapes {} and {}\n", name, width, told["shape"][0].dump(),
                          told["shape"][1].dump());
    else
      text +=
          fmt::format("  {:<{}}  {:>12} {:>12} {:>11} {:>11}  {}: {}, {}\n", name, width,
                      told["differing"].get<std::int64_t>(), told["elements"].get<std::int64_t>(),
                      short_number(told["max_absolute"]), short_number(told["max_relative"]),
                      told["first"].dump(), short_number(told["first_values"][0]),
                      short_number(told["first_values"][1]));
  }
  return text;
}

std::string name_line(const char* label, const Json& name) {
  std::string line = fmt::format("{}: {} {}", label, plain(name["kind"]), plain(name["file"]));
  if (name.contains("step")) line += fmt::format(", step {}", name["step"].get<std::int64_t>());
  return line + '\n';
}

}  // namespace

Json compare_contents(const Contents& a, const Contents& b) {
  Json result;
  result["equal"] = false;
  result["a"] = name_of(a);
  result["b"] = name_of(b);
  result["header"] = header_differences(a, b);
  result["only_in_a"] = result["only_in_b"] = Json::array();
  result["types"] = result["tensors"] = Json::object();
  Matching matching(a, b);
  std::int64_t compared = 0;
  for (const TensorEntry& entry : a.tensors()) {
    if (!matching.counts(entry)) continue;
    const TensorEntry* other = matching.take(entry);
    if (other == nullptr) {
      result["only_in_a"].push_back(entry.path);
      continue;
    }
    ++compared;
    if (entry.type != other->type && a.is_checkpoint() == b.is_checkpoint())
      result["types"][entry.path] = {entry.type, other->type};
    Json difference = tensor_difference(a, entry, b, *other);
    if (!difference.is_null()) result["tensors"][entry.path] = std::move(difference);
  }
  for (const auto& [key, entry] : matching.left()) result["only_in_b"].push_back(entry->path);
  result["compared"] = compared;
  const bool both = a.is_checkpoint() && b.is_checkpoint();
  const bool same_headers =
      !both || std::none_of(result["header"].begin(), result["header"].end(),
                            [](const Json& told) { return decides(told["key"]); });
  result["equal"] = same_headers && result["tensors"].empty() && result["types"].empty() &&
                    result["only_in_a"].empty() && result["only_in_b"].empty();
  return result;
}

std::string format_comparison(const Json& comparison) {
  std::string text = name_line("A", comparison["a"]) + name_line("B", comparison["b"]);
  for (const Json& told : comparison["header"])
    text += told["key"] == "config" ? "config: the texts differ\n"
                                    : fmt::format("{}: {} and {}\n", plain(told["key"]),
                                                  plain(told["a"]), plain(told["b"]));
  for (const auto& [label, key] : {std::pair{"A", "only_in_a"}, std::pair{"B", "only_in_b"}})
    for (const Json& name : comparison[key])
      text += fmt::format("only in {}: {}\n", label, plain(name));
  for (const auto& [name, types] : comparison["types"].items())
    text += fmt::format("types of {}: {} and {}\n", name, plain(types[0]), plain(types[1]));
  const Json& tensors = comparison["tensors"];
  const auto compared = comparison["compared"].get<std::int64_t>();
  if (tensors.empty())
    text += fmt::format("{} tensors are the same in both, bit for bit\n", compared);
  else
    text += fmt::format("{} of {} tensors differ:\n", tensors.size(), compared);
  if (!tensors.empty()) text += differences_table(tensors);
  return text + (comparison["equal"].get<bool>() ? "equal\n" : "different\n");
}

}  // namespace tessera::app
