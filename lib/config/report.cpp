// SPDX-License-Identifier: Apache-2.0
#include "tessera/config/report.hpp"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "config/parse.hpp"
#include "config/table.hpp"

namespace tessera::config {
namespace {

constexpr std::size_t kWidestValue = 40;

/// Words that YAML (1.1 or 1.2) would read as something else than text.
bool is_reserved(std::string_view word) {
  static constexpr std::array<std::string_view, 9> words = {"true", "false", "null", "yes", "no",
                                                            "on",   "off",   "y",    "n"};
  std::string lower(word);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return std::find(words.begin(), words.end(), lower) != words.end();
}

bool is_plain(std::string_view word) {
  if (word.empty() || !(std::isalpha(static_cast<unsigned char>(word[0])) || word[0] == '_'))
    return false;
  return !is_reserved(word) && std::all_of(word.begin(), word.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '_' || c == '-' || c == '.' || c == '/';
  });
}

std::string yaml_text(const Node& value) {
  if (value.is(Node::Kind::text) && is_plain(value.text)) return value.text;
  return to_json_text(value);
}

std::string yaml_key(const std::string& key) {
  return is_plain(key) ? key : json_string(key);
}

/// Values that follow from the others and the ranks, so that the file also fits other ranks.
bool stays_auto(const Entry& entry) {
  return entry.path == "mesh.data" || entry.path == "engine.gradient_accumulation_steps" ||
         (entry.path == "engine.communication_data_type" && entry.automatic);
}

/// Writes nested sections from paths that come in the table's order.
class YamlWriter {
 public:
  void add(const Entry& entry) {
    Node value = parse_json(entry.value, entry.path);
    std::string remark;
    if (stays_auto(entry) && !value.is_text("auto")) {
      remark = fmt::format("  # {} in this run", entry.value);
      value = make_text("auto");
    }
    // Keys of one section do not always follow each other, so the text is made from a tree.
    Node* at = &root_;
    for (const std::string& segment : split_path(entry.path)) {
      at->kind = Node::Kind::map;
      at = &at->at_or_add(segment);
    }
    *at = std::move(value);
    at->source.reason = std::move(remark);
    at->source.line = 1;  // a value, not a section: {} stays {}
  }

  std::string text() const {
    std::string text;
    write(root_, 0, text);
    return text;
  }

 private:
  static void write(const Node& map, std::size_t depth, std::string& text) {
    for (std::size_t i = 0; i < map.keys.size(); ++i) {
      const Node& item = map.items[i];
      text += fmt::format("{:{}}{}:", "", 2 * depth, yaml_key(map.keys[i]));
      if (item.is(Node::Kind::map) && item.source.line == 0) {
        text += "\n";
        write(item, depth + 1, text);
      } else {
        text += fmt::format(" {}{}\n", yaml_text(item), item.source.reason);
      }
    }
  }

  Node root_;
};

}  // namespace

std::string print_resolved(const RunConfig& config) {
  std::size_t path_width = 0, value_width = 0;
  for (const Entry& entry : config.entries) {
    path_width = std::max(path_width, entry.path.size());
    value_width = std::max(value_width, std::min(kWidestValue, entry.value.size()));
  }
  std::string text;
  for (const Entry& entry : config.entries)
    text += fmt::format("{:<{}}  {:<{}}  {}\n", entry.path, path_width, entry.value, value_width,
                        entry.source.to_string());
  for (const std::string& notice : config.notices) text += notice + "\n";
  return text;
}

std::string to_json(const RunConfig& config) {
  std::string text;
  for (const Entry& entry : config.entries) {
    text +=
        fmt::format("{}\n  {}: {{\"value\": {}, \"source\": {}}}", text.empty() ? "" : ",",
                    json_string(entry.path), entry.value, json_string(entry.source.to_string()));
  }
  return fmt::format("{{{}\n}}\n", text);
}

std::string to_yaml(const RunConfig& config) {
  YamlWriter writer;
  for (const Entry& entry : config.entries) {
    // What mesh says already, and what follows from the rest.
    const bool follows = entry.path == "run.total_steps" ||
                         entry.path == "engine.data_parallel_size" ||
                         entry.path == "engine.sequence_parallel_size" ||
                         entry.path.starts_with("engine.pipeline.") ||
                         entry.path.starts_with("engine.tensor_parallel.");
    if (entry.value != "null" && !follows) writer.add(entry);
  }
  return writer.text();
}

}  // namespace tessera::config
