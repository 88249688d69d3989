// SPDX-License-Identifier: Apache-2.0
// Loading from checkpoints: which dataset belongs to which parameter, and how much of it fits.
#include <algorithm>
#include <optional>
#include <set>
#include <string>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "tessera/base/error.hpp"
#include "tessera/parallel/model_state.hpp"

#include "parallel/state_parts.hpp"

namespace tessera::parallel {
namespace {

constexpr std::size_t kMostNames = 10;

std::string list_names(const std::vector<std::string>& names) {
  const std::size_t shown = std::min(names.size(), kMostNames);
  std::string text = fmt::format(
      "{}", fmt::join(names.begin(), names.begin() + static_cast<std::ptrdiff_t>(shown), ", "));
  if (shown < names.size()) text += fmt::format(" and {} more", names.size() - shown);
  return text;
}

// The dataset that holds a parameter.
std::optional<std::string> find_parameter(const nn::Network& model, const nn::NamedParameter& named,
                                          const checkpoint::Reader& reader) {
  for (const std::string& name : model.names_in_files(named.name))
    if (reader.contains(parameter_path(name))) return parameter_path(name);
  return std::nullopt;
}

// The same shapes but for a first dimension that is the vocabulary on both sides.
bool differ_in_vocabulary(const nn::Network& model, const Shape& wanted,
                          const checkpoint::Reader& reader, const Shape& found) {
  if (model.vocabulary() == 0 || wanted.rank() == 0 || wanted.rank() != found.rank()) return false;
  if (!std::equal(wanted.sizes().begin() + 1, wanted.sizes().end(), found.sizes().begin() + 1))
    return false;
  const std::int64_t theirs = nn::make_model(reader.header().model, {})->vocabulary();
  return wanted[0] == model.vocabulary() && found[0] == theirs;
}

// For how many leading elements of this rank's parameter a dataset has values.
std::int64_t common_elements(const nn::Network& model, const nn::NamedParameter& named,
                             const checkpoint::Reader& reader, const std::string& path,
                             const LoadRules& rules) {
  const nn::Partition& partition = named.parameter->partition;
  const Shape& wanted = partition.logical();
  const Shape& found = reader.dataset(path).shape;
  if (found == wanted) return partition.local().numel();
  const bool vocabulary =
      rules.allow_vocabulary_change && differ_in_vocabulary(model, wanted, reader, found);
  TESSERA_CHECK(vocabulary, Code::io,
                fmt::format("{} has shape {} in {}, the model wants {}", path, found.to_string(),
                            reader.path(), wanted.to_string()));
  return partition.leading(std::min(wanted.numel(), found.numel()));
}

// Where a parameter comes from, and how many of its leading elements; none: it is not there.
struct Source {
  std::string path;
  std::int64_t elements = 0;
};

// Of all parameters, by index. Checks everything before anything is loaded.
template <typename PathOf>
std::vector<Source> find_sources(const nn::Network& model, const checkpoint::Reader& reader,
                                 const LoadRules& rules, PathOf&& path_of) {
  std::vector<Source> sources;
  for (const nn::NamedParameter& named : model.parameters()) {
    Source& source = sources.emplace_back();
    const std::optional<std::string> path = path_of(named);
    if (path) source = {*path, common_elements(model, named, reader, *path, rules)};
  }
  return sources;
}

// What read_each_once asks for, answered by a checkpoint.
auto extent_in(const std::vector<Source>& sources) {
  return [&sources](int index, const nn::NamedParameter&) {
    return sources[static_cast<std::size_t>(index)].elements;
  };
}
auto read_from(const checkpoint::Reader& reader, const std::vector<Source>& sources) {
  return [&](int index, const nn::NamedParameter&, zero::Range part, float* out) {
    reader.read(sources[static_cast<std::size_t>(index)].path, part.begin, part.count, DType::fp32,
                out);
  };
}

void check_names(const NameDifference& difference, const checkpoint::Reader& reader,
                 const LoadRules& rules) {
  TESSERA_CHECK(!rules.strict || difference.empty(), Code::io,
                fmt::format("{} does not fit the model and its optimizer: {}", reader.path(),
                            difference.to_string()));
}

}  // namespace

std::string NameDifference::to_string() const {
  std::string text;
  if (!missing.empty()) text = fmt::format("missing: {}", list_names(missing));
  if (!unexpected.empty())
    text += fmt::format("{}unexpected: {}", text.empty() ? "" : "; ", list_names(unexpected));
  return text;
}

NameDifference compare_parameters(const nn::Network& model, const checkpoint::Reader& reader) {
  NameDifference difference;
  std::set<std::string> used;
  for (const nn::NamedParameter& named : model.logical_parameters()) {
    const auto path = find_parameter(model, named, reader);
    if (path)
      used.insert(*path);
    else
      difference.missing.push_back(named.name);
  }
  const std::string prefix = parameter_path("");
  for (const checkpoint::DatasetInfo& info : reader.datasets()) {
    if (!info.path.starts_with(prefix) || used.contains(info.path)) continue;
    const std::string name = info.path.substr(prefix.size());
    if (!model.ignores(name)) difference.unexpected.push_back(name);
  }
  return difference;
}

NameDifference compare_optimizer_states(const nn::Network& model,
                                        const zero::PartitionedOptimizer& optimizer,
                                        const checkpoint::Reader& reader) {
  NameDifference difference;
  std::set<std::string> wanted;
  for (const std::string& state : optimizer.state_names())
    for (const nn::NamedParameter& named : model.logical_parameters()) {
      const std::string path = state_path(state, named.name);
      wanted.insert(path);
      if (!reader.contains(path)) difference.missing.push_back(path);
    }
  for (const checkpoint::DatasetInfo& info : reader.datasets())
    if (info.path.starts_with("optimizer/") && !wanted.contains(info.path))
      difference.unexpected.push_back(info.path);
  return difference;
}

void load_parameters(const nn::Network& model, zero::PartitionedOptimizer& optimizer,
                     const checkpoint::Reader& reader, const LoadRules& rules) {
  std::vector<Source> sources;
  agreeing(optimizer.everyone(), [&] {
    check_names(compare_parameters(model, reader), reader, rules);
    sources = find_sources(model, reader, rules, [&](const nn::NamedParameter& named) {
      return find_parameter(model, named, reader);
    });
  });
  read_parameters_once(model, optimizer, extent_in(sources), read_from(reader, sources));
}

void load_optimizer_states(const nn::Network& model, zero::PartitionedOptimizer& optimizer,
                           const checkpoint::Reader& reader, const LoadRules& rules) {
  agreeing(optimizer.everyone(),
           [&] { check_names(compare_optimizer_states(model, optimizer, reader), reader, rules); });
  for (const std::string& state : optimizer.state_names()) {
    const auto path_of = [&](const nn::NamedParameter& named) -> std::optional<std::string> {
      std::string path = state_path(state, named.name);
      if (!reader.contains(path)) return std::nullopt;
      return path;
    };
    std::vector<Source> sources;
    agreeing(optimizer.everyone(), [&] { sources = find_sources(model, reader, rules, path_of); });
    const bool in_place = optimizer.device().is_cpu();
    std::vector<float> staging(static_cast<std::size_t>(in_place ? 0 : kStagingElements));
    read_each_once(
        model, optimizer, extent_in(sources), read_from(reader, sources),
        [&](int index, zero::Range chunk) {
          if (!in_place) return staging.data();
          return optimizer.state(index, state) + (chunk.begin - optimizer.held(index).begin);
        },
        [&](int index, zero::Range chunk) {
          if (!in_place) optimizer.load_state(index, state, chunk, staging.data());
        });
  }
}

}  // namespace tessera::parallel
