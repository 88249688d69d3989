// SPDX-License-Identifier: Apache-2.0
#include "config/overrides.hpp"

#include <fmt/format.h>

#include "tessera/base/nearest_name.hpp"

#include "config/named_type.hpp"
#include "config/parse.hpp"
#include "config/walk.hpp"

namespace tessera::config {
namespace {

/// Of the inline model, as far as `root` says it.
std::string model_type_of(const Node& root) {
  const Node* model = root.find("model");
  const Node* type = model != nullptr ? model->find("model_type") : nullptr;
  return type != nullptr ? type->text : kUsualModel;
}

/// Other names of a model's keys are those of one type, and the keys' own names in another.
std::string canonical(const std::string& path, const std::string& model_type) {
  const auto found = aliases().find(path);
  if (found == aliases().end()) return path;
  return path.starts_with("model.") && model_type != kUsualModel ? path : found->second;
}

std::string last_segment(const std::string& path) {
  return path.substr(path.rfind('.') + 1);
}

void rename_in(Node& map, const std::string& prefix, const std::string& model_type,
               Problems& problems) {
  for (std::size_t i = 0; i < map.keys.size(); ++i) {
    const std::string path = prefix.empty() ? map.keys[i] : prefix + "." + map.keys[i];
    const std::string name = canonical(path, model_type);
    if (name != path) {
      if (const Node* other = map.find(last_segment(name))) {
        problems.add(Code::invalid_config,
                     fmt::format("{}: `{}` is another name of `{}`, which line {} gives too",
                                 map.items[i].source.to_string(), path, name, other->source.line));
        continue;
      }
      map.keys[i] = last_segment(name);
    }
    if (map.items[i].is(Node::Kind::map)) rename_in(map.items[i], name, model_type, problems);
  }
}

std::string canonical_path(const std::string& path, const std::string& model_type) {
  std::string result;
  for (const std::string& segment : split_path(path)) {
    if (!result.empty()) result += '.';
    result = canonical(result + segment, model_type);
  }
  return result;
}

bool is_parameter(const std::string& path) {
  return path.starts_with("engine.optimizer.params.") ||
         path.starts_with("engine.scheduler.params.");
}

bool is_known(const std::string& path) {
  if (is_parameter(path)) return true;  // depends on the type, which is read later
  const Branch* at = &key_tree();
  for (const std::string& segment : split_path(path)) {
    if (at->row != nullptr && at->children.empty() && (at->row->type.kinds & Type::map))
      return true;  // content that is not checked
    at = at->find(segment);
    if (at == nullptr) return false;
  }
  return true;
}

std::vector<std::string> all_paths() {
  std::vector<std::string> paths;
  for (const Row& row : table()) paths.push_back(row.path);
  for (const auto& [types, prefix] :
       {std::pair(&optimizer_types(), kOptimizer), std::pair(&scheduler_types(), kScheduler)})
    for (const NamedType& type : *types)
      for (const Row& row : type.parameters)
        paths.push_back(fmt::format("{}.params.{}", prefix, row.path));
  return paths;
}

/// For the first segment that is not known.
std::string advice_along(const std::string& path) {
  const Branch* at = &key_tree();
  for (const std::string& segment : split_path(path)) {
    const Branch* next = at->find(segment);
    if (next == nullptr) return advice(segment, *at);
    at = next;
  }
  return "";
}

void check_known(const std::string& path, const std::string& argument) {
  if (is_known(path)) return;
  std::string hint = did_you_mean(path, all_paths());
  if (hint.empty()) hint = advice_along(path);
  fail(Code::invalid_config, fmt::format("--set {}: unknown path `{}`{}", argument, path, hint));
}

}  // namespace

void rename_aliases(Node& root, Problems& problems) {
  rename_in(root, "", model_type_of(root), problems);
}

void apply_override(Node& root, const std::string& argument) {
  const std::size_t equals = argument.find('=');
  TESSERA_CHECK(
      equals != std::string::npos && equals > 0, Code::invalid_config,
      fmt::format("--set {}: it must be path=value, for example run.steps=100", argument));
  std::string path = argument.substr(0, equals);
  // A file that was a bare DeepSpeed configuration has only `engine`; its own paths work too.
  if (key_tree().find(split_path(path).front()) == nullptr && is_known("engine." + path))
    path = "engine." + path;
  path = canonical_path(path, model_type_of(root));
  check_known(path, argument);
  Node* at = &root;
  for (const std::string& segment : split_path(path)) {
    TESSERA_CHECK(at->is(Node::Kind::null) || at->is(Node::Kind::map), Code::invalid_config,
                  fmt::format("--set {}: {} is {}, not a section that could hold {}", argument,
                              at->source.to_string(), describe(*at), segment));
    if (at->is(Node::Kind::null)) at->kind = Node::Kind::map;
    at = &at->at_or_add(segment);
    if (at->source.kind == Source::Kind::fallback) at->source.kind = Source::Kind::set;
  }
  *at = parse_override(argument.substr(equals + 1), argument);
}

bool looks_like_engine(const Node& root) {
  const Branch* engine = key_tree().find("engine");
  bool any = false;
  for (const std::string& key : root.keys) {
    if (key_tree().children.count(key) > 0) return false;
    any |= engine->find(key) != nullptr || aliases().count("engine." + key) > 0;
  }
  return any;
}

}  // namespace tessera::config
