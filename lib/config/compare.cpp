// SPDX-License-Identifier: Apache-2.0
#include "tessera/config/compare.hpp"

#include <array>
#include <sstream>

#include <fmt/format.h>

#include "config/parse.hpp"

namespace tessera::config {
namespace {

std::string list_text(const std::vector<std::string>& texts) {
  Node list;
  list.kind = Node::Kind::list;
  for (const std::string& text : texts) list.items.push_back(make_text(text));
  return to_json_text(list);
}

std::optional<Difference> differ(std::string path, std::string first, std::string second) {
  if (first == second) return std::nullopt;
  return Difference{std::move(path), std::move(first), std::move(second)};
}

/// Key by key where both are known, whatever the order of the keys.
std::optional<Difference> compare_json(const std::string& first, const std::string& second) {
  const Node a = parse_json(first, "model"), b = parse_json(second, "model");
  for (const auto& [one, other, swapped] : {std::tuple(&a, &b, false), std::tuple(&b, &a, true)}) {
    for (std::size_t i = 0; i < one->keys.size(); ++i) {
      const Node* match = other->find(one->keys[i]);
      std::string mine = to_json_text(one->items[i]);
      std::string theirs = match == nullptr ? "" : to_json_text(*match);
      // A key that is null on one side and missing on the other says the same.
      if (mine == "null" && theirs.empty()) continue;
      if (swapped) std::swap(mine, theirs);
      if (auto found = differ("model." + one->keys[i], mine, theirs)) return found;
    }
  }
  return std::nullopt;
}

std::optional<Difference> compare_models(const ModelSource& a, const ModelSource& b) {
  if (!a.json.empty() && !b.json.empty()) return compare_json(a.json, b.json);
  const auto text = [](const ModelSource& model) {
    return model.is_inline() ? model.json : json_string(model.folder);
  };
  return differ("model", text(a), text(b));
}

std::optional<Difference> compare_data(const DataConfig& a, const DataConfig& b) {
  const auto validation = [](const DataConfig& data) {
    return data.validation_files.empty() ? fmt::format("{}", data.validation_fraction)
                                         : list_text(data.validation_files);
  };
  if (auto found = differ("data.train", list_text(a.train), list_text(b.train))) return found;
  if (auto found = differ("data.validation", validation(a), validation(b))) return found;
  if (auto found = differ("data.tokenizer", json_string(a.tokenizer), json_string(b.tokenizer)))
    return found;
  if (auto found = differ("data.sequence_length", std::to_string(a.sequence_length),
                          std::to_string(b.sequence_length)))
    return found;
  return differ("data.field", json_string(a.field), json_string(b.field));
}

}  // namespace

std::optional<Difference> compare(const RunConfig& made_with, const RunConfig& now) {
  if (auto found = compare_models(made_with.model, now.model)) return found;
  if (auto found = compare_data(made_with.data, now.data)) return found;
  if (auto found = differ("engine.train_batch_size", std::to_string(made_with.engine.batch.train),
                          std::to_string(now.engine.batch.train)))
    return found;
  if (auto found =
          differ("run.seed", std::to_string(made_with.run.seed), std::to_string(now.run.seed)))
    return found;
  return differ("engine.optimizer.type", json_string(made_with.engine.optimizer.type),
                json_string(now.engine.optimizer.type));
}

std::string canonical_text(const RunConfig& config) {
  std::string text;
  for (const Entry& entry : config.entries)
    text += fmt::format("{}: {}\n", entry.path, entry.value);
  return text;
}

std::uint64_t fingerprint(const RunConfig& config) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : canonical_text(config))
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

std::optional<Difference> first_difference(const std::string& first, const std::string& second) {
  std::istringstream a(first), b(second);
  const auto split = [](const std::string& line) {
    const std::size_t colon = line.find(": ");
    return colon == std::string::npos ? std::pair(line, std::string())
                                      : std::pair(line.substr(0, colon), line.substr(colon + 2));
  };
  for (;;) {
    std::string line_a, line_b;
    const bool more_a = static_cast<bool>(std::getline(a, line_a));
    const bool more_b = static_cast<bool>(std::getline(b, line_b));
    if (!more_a && !more_b) return std::nullopt;
    if (line_a == line_b) continue;
    const auto [path_a, value_a] = split(line_a);
    const auto [path_b, value_b] = split(line_b);
    if (path_a == path_b) return Difference{path_a, value_a, value_b};
    // One side has a value that the other lacks; which one, the order of keys does not tell.
    return more_a ? Difference{path_a, value_a, ""} : Difference{path_b, "", value_b};
  }
}

}  // namespace tessera::config
