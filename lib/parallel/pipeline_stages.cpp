// SPDX-License-Identifier: Apache-2.0
#include "tessera/parallel/pipeline_stages.hpp"

#include <algorithm>
#include <charconv>
#include <limits>
#include <numeric>
#include <regex>
#include <set>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "tessera/base/error.hpp"
#include "tessera/base/number_format.hpp"

namespace tessera::parallel {
namespace {

constexpr std::string_view kType = "type:";

[[noreturn]] void refuse_text(const std::string& text) {
  fail(Code::invalid_config,
       fmt::format("stages by '{}': parameters, uniform, type:PATTERN, or the layers of each stage "
                   "such as 3,4,4,3",
                   text));
}

std::vector<int> parse_counts(const std::string& text) {
  std::vector<int> counts;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at < end) {
    int count = 0;
    const auto [next, error] = std::from_chars(at, end, count);
    if (error != std::errc() || (next != end && *next != ',')) refuse_text(text);
    counts.push_back(count);
    at = next == end ? end : next + 1;
  }
  if (counts.empty()) refuse_text(text);
  return counts;
}

std::regex compile(const std::string& pattern) {
  try {
    return std::regex(pattern, std::regex::ECMAScript | std::regex::icase);
  } catch (const std::regex_error& error) {
    fail(Code::invalid_config, fmt::format("the pattern '{}' of pipeline.partition is no regular "
                                           "expression: {}",
                                           pattern, error.what()));
  }
}

std::vector<std::int64_t> weights_of(const std::vector<nn::LayerInfo>& layers, int stages,
                                     const StageCut& cut) {
  std::vector<std::int64_t> weights(layers.size(), 1);
  if (cut.by == StageCut::By::parameters)
    std::ranges::transform(layers, weights.begin(), &nn::LayerInfo::parameters);
  if (cut.by != StageCut::By::type) return weights;
  const std::regex pattern = compile(cut.pattern);
  std::ranges::transform(layers, weights.begin(), [&](const nn::LayerInfo& layer) {
    return std::regex_search(layer.name, pattern) ? 1 : 0;
  });
  const std::int64_t matches = std::reduce(weights.begin(), weights.end());
  TESSERA_CHECK(
      matches >= stages, Code::invalid_config,
      fmt::format("{} layers match '{}' of pipeline.partition, too few for {} stages: at most {} "
                  "stages, or another pattern. Layers: {}, …, {}",
                  matches, cut.pattern, stages, matches, layers.front().name, layers.back().name));
  return weights;
}

std::vector<int> cuts_of(const std::vector<int>& counts) {
  std::vector<int> cuts = {0};
  for (const int count : counts) cuts.push_back(cuts.back() + count);
  return cuts;
}

std::vector<int> cut_by_counts(const std::vector<int>& counts, int layers, int stages) {
  const int sum = std::reduce(counts.begin(), counts.end());
  const bool positive = std::ranges::all_of(counts, [](int count) { return count > 0; });
  TESSERA_CHECK(positive && sum == layers && std::ssize(counts) == stages, Code::invalid_config,
                fmt::format("pipeline.partition [{}] has {} stages with {} layers{}, but there are "
                            "{} stages and {} layers: each stage needs at least one",
                            fmt::join(counts, ", "), counts.size(), sum,
                            positive ? "" : ", some without any", stages, layers));
  return cuts_of(counts);
}

/// The contiguous division whose heaviest stage is lightest, and of those the one with the smallest
/// sum of squares; the earlier stages get more where that is equal.
std::vector<int> balance(const std::vector<std::int64_t>& weights, int stages) {
  const int layers = static_cast<int>(weights.size());
  std::vector<std::int64_t> before(weights.size() + 1, 0);
  std::partial_sum(weights.begin(), weights.end(), before.begin() + 1);
  struct Best {
    std::int64_t heaviest = std::numeric_limits<std::int64_t>::max();
    double squares = 0;
    int from = -1;
    bool operator<(const Best& other) const {
      return heaviest != other.heaviest ? heaviest < other.heaviest : squares < other.squares;
    }
  };
  // best[s][n]: the first n layers in s stages.
  std::vector<std::vector<Best>> best(static_cast<std::size_t>(stages) + 1,
                                      std::vector<Best>(weights.size() + 1));
  best[0][0] = {0, 0, 0};
  for (std::size_t s = 1; s < best.size(); ++s)
    for (int n = static_cast<int>(s); n <= layers; ++n)
      for (int from = n - 1; from >= static_cast<int>(s) - 1; --from) {
        const Best& former = best[s - 1][static_cast<std::size_t>(from)];
        if (former.from < 0) continue;
        const std::int64_t weight =
            before[static_cast<std::size_t>(n)] - before[static_cast<std::size_t>(from)];
        const Best candidate{
            std::max(former.heaviest, weight),
            former.squares + static_cast<double>(weight) * static_cast<double>(weight), from};
        Best& current = best[s][static_cast<std::size_t>(n)];
        if (candidate < current) current = candidate;
      }
  std::vector<int> cuts = {layers};
  for (std::size_t s = best.size() - 1; s > 0; --s)
    cuts.push_back(best[s][static_cast<std::size_t>(cuts.back())].from);
  std::ranges::reverse(cuts);
  return cuts;
}

/// Which ranks have a layer with each tied parameter.
std::map<std::string, std::set<int>> ranks_of_ties(const std::vector<nn::LayerInfo>& layers,
                                                   const nn::PipelineAxis& axis) {
  std::map<std::string, std::set<int>> ranks;
  for (int stage = 0; stage < axis.stages(); ++stage)
    for (int layer = axis.cuts[static_cast<std::size_t>(stage)];
         layer < axis.cuts[static_cast<std::size_t>(stage) + 1]; ++layer)
      for (const std::string& name : layers.at(static_cast<std::size_t>(layer)).tied)
        ranks[name].insert(axis.rank_of(stage));
  return ranks;
}

/// Ranks whose stages are neighbours, in both directions.
std::set<std::pair<int, int>> directions(const nn::PipelineAxis& axis) {
  std::set<std::pair<int, int>> pairs;
  for (int stage = 1; stage < axis.stages(); ++stage) {
    const int before = axis.rank_of(stage - 1), after = axis.rank_of(stage);
    if (before != after) pairs.insert({{before, after}, {after, before}});
  }
  return pairs;
}

// Operations of a communicator run one after the other on a GPU: a message that waits for its
// receiver would hold up those that come from there.
void open_directions(Communicator& line, nn::PipelineAxis& axis, TieGroups& groups) {
  for (const auto& [sender, receiver] : directions(axis)) {
    const bool sends = sender == axis.rank, receives = receiver == axis.rank;
    auto group = line.split(sends || receives ? 0 : -1, receives ? 1 : 0, "pipeline pair");
    if (!group) continue;
    (sends ? axis.to[receiver] : axis.from[sender]) = group.get();
    groups[fmt::format("{} to {}", sender, receiver)] = std::move(group);
  }
}

}  // namespace

StageCut StageCut::parse(const std::string& text) {
  if (text == "parameters" || text == "best") return {};
  if (text == "uniform") return {.by = By::uniform};
  if (text.starts_with(kType)) return {.by = By::type, .pattern = text.substr(kType.size())};
  return {.by = By::counts, .counts = parse_counts(text)};
}

std::string StageCut::to_string() const {
  switch (by) {
    case By::parameters:
      return "parameters";
    case By::uniform:
      return "uniform";
    case By::type:
      return std::string(kType) + pattern;
    case By::counts:
      return fmt::format("{}", fmt::join(counts, ","));
  }
  return "";
}

std::vector<int> cut_layers(const std::vector<nn::LayerInfo>& layers, int stages,
                            const StageCut& cut) {
  const int count = static_cast<int>(layers.size());
  TESSERA_CHECK(count > 0, Code::not_supported,
                "this network cannot be cut into the stages of a pipeline; use mesh.pipeline 1");
  TESSERA_CHECK(
      stages <= count, Code::invalid_config,
      fmt::format(
          "a pipeline of {} stages needs a layer for each, but the model has {} layers ({}, "
          "…, {}): at most {} stages (mesh.pipeline times the chunks of a rank)",
          stages, count, layers.front().name, layers.back().name, count));
  if (cut.by == StageCut::By::counts) return cut_by_counts(cut.counts, count, stages);
  return balance(weights_of(layers, stages, cut), stages);
}

nn::PipelineAxis pipeline_axis(const PipelineShape& resolved, std::vector<int> cuts, int rank) {
  nn::PipelineAxis axis;
  axis.size = resolved.ranks;
  axis.rank = rank;
  axis.cuts = std::move(cuts);
  for (int stage = 0; stage < resolved.stages(); ++stage) {
    axis.ranks.push_back(resolved.rank_of(stage));
    if (axis.ranks.back() == rank) axis.own.push_back(stage);
  }
  return axis;
}

TieGroups take_stages(nn::Network& network, Communicator& line, const PipelineShape& resolved,
                      const std::vector<int>& cuts) {
  nn::PipelineAxis axis = pipeline_axis(resolved, cuts, line.rank());
  axis.group = &line;
  TieGroups groups;
  for (const auto& [name, ranks] : ranks_of_ties(network.layers(), axis)) {
    if (ranks.size() < 2) continue;
    auto group = line.split(ranks.contains(line.rank()) ? 0 : -1, line.rank(), "tied");
    if (group) axis.ties[name] = (groups[name] = std::move(group)).get();
  }
  if (std::string_view(line.device_transport()) == "nccl") open_directions(line, axis, groups);
  network.take_stages(axis);
  return groups;
}

std::string describe_stages(const std::vector<nn::LayerInfo>& layers,
                            const std::vector<int>& cuts) {
  std::string text;
  for (std::size_t stage = 0; stage + 1 < cuts.size(); ++stage) {
    const auto first = static_cast<std::size_t>(cuts[stage]);
    const auto last = static_cast<std::size_t>(cuts[stage + 1]) - 1;
    double parameters = 0;
    for (std::size_t layer = first; layer <= last; ++layer)
      parameters += static_cast<double>(layers[layer].parameters);
    text += fmt::format(
        "{}  stage {}: {}{} ({} parameters)", stage == 0 ? "" : "\n", stage, layers[first].name,
        first == last ? "" : fmt::format(" … {}", layers[last].name), format_count(parameters));
  }
  return text;
}

}  // namespace tessera::parallel
