// SPDX-License-Identifier: Apache-2.0
#include "config/named_type.hpp"

#include <algorithm>
#include <cctype>

#include <fmt/format.h>

#include "config/parse.hpp"

namespace tessera::config {
namespace {

bool same_word(const std::string& a, const std::string& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](unsigned char x, unsigned char y) {
    return std::tolower(x) == std::tolower(y);
  });
}

std::vector<std::string> names_of(const std::vector<NamedType>& types, Status status) {
  std::vector<std::string> names;
  for (const NamedType& type : types)
    if (type.status == status) names.push_back(type.name);
  return names;
}

const Given* find(const std::vector<Given>& given, const std::string& path) {
  for (const Given& one : given)
    if (one.path == path) return &one;
  return nullptr;
}

Given fallback_of(const std::string& path, const Row& row) {
  Node value = parse_json(row.fallback, path);
  value.source = Source{};
  return {path, &row, std::move(value)};
}

const NamedType* choose(const std::string& path, const std::vector<NamedType>& types,
                        const Node& value, Problems& problems) {
  for (const NamedType& type : types) {
    if (!same_word(type.name, value.text)) continue;
    if (type.status == Status::supported) return &type;
    problems.add(Code::not_supported,
                 fmt::format("{}: `{}` is {}, which is not available yet; {}",
                             value.source.to_string(), path, describe(value), type.note));
    return nullptr;
  }
  problems.add(
      Code::invalid_config,
      fmt::format("{}: `{}` is {}, which is unknown{}", value.source.to_string(), path,
                  describe(value), advice(value.text, names_of(types, Status::supported))));
  return nullptr;
}

const Row* find(const NamedType& type, const std::string& name) {
  for (const Row& row : type.parameters)
    if (row.path == name) return &row;
  return nullptr;
}

std::vector<std::string> parameter_names(const NamedType& type) {
  std::vector<std::string> names;
  for (const Row& row : type.parameters) names.push_back(row.path);
  return names;
}

/// The type that has the parameter, if this one has not.
const NamedType* owner_of(const std::string& name, const std::vector<NamedType>& types) {
  for (const NamedType& type : types)
    if (find(type, name) != nullptr) return &type;
  return nullptr;
}

void check_known(const NamedType& type, const std::vector<NamedType>& types,
                 const std::string& prefix, const Node& params, Problems& problems) {
  for (std::size_t i = 0; i < params.keys.size(); ++i) {
    const std::string& name = params.keys[i];
    if (find(type, name) != nullptr) continue;
    const NamedType* owner = owner_of(name, types);
    const std::string hint = owner != nullptr ? fmt::format("; it belongs to {}", owner->name)
                                              : advice(name, parameter_names(type));
    problems.add(Code::invalid_config,
                 fmt::format("{}: unknown key `{}.{}` of {}{}", params.items[i].source.to_string(),
                             prefix, name, type.name, hint));
  }
}

}  // namespace

std::vector<Given> read_named_type(const std::string& prefix, const std::vector<NamedType>& types,
                                   const std::vector<Given>& given, Problems& problems) {
  const std::string type_path = prefix + ".type", params_path = prefix + ".params";
  const Given* named = find(given, type_path);
  Given type_value = named != nullptr ? *named : fallback_of(type_path, *find_row(type_path));
  const NamedType* type = choose(type_path, types, type_value.value, problems);
  if (type == nullptr) return {};
  type_value.value.text = type->name;
  std::vector<Given> result = {std::move(type_value)};

  const Given* section = find(given, params_path);
  const Node empty;
  const Node& params = section != nullptr ? section->value : empty;
  check_known(*type, types, params_path, params, problems);
  for (const Row& row : type->parameters) {
    const std::string path = params_path + "." + row.path;
    const Node* value = params.find(row.path);
    if (value != nullptr && !value->is(Node::Kind::null)) {
      if (check_value(path, row, *value, problems)) result.push_back({path, &row, *value});
    } else if (row.status == Status::supported) {
      result.push_back(fallback_of(path, row));
    }
  }
  return result;
}

}  // namespace tessera::config
