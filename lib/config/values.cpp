// SPDX-License-Identifier: Apache-2.0
#include "config/values.hpp"

#include <fmt/format.h>

#include "tessera/base/error.hpp"

#include "config/parse.hpp"

namespace tessera::config {

Entry* Values::find(std::string_view path) {
  for (Entry& entry : entries_)
    if (entry.path == path) return &entry;
  return nullptr;
}

Node Values::get(std::string_view path) {
  const Entry* entry = find(path);
  return entry == nullptr ? Node{} : parse_json(entry->value, entry->path);
}

std::optional<std::int64_t> Values::integer(std::string_view path) {
  const Node node = get(path);
  if (!node.is(Node::Kind::number) || !node.whole) return std::nullopt;
  return node.integer;
}

std::optional<double> Values::number(std::string_view path) {
  const Node node = get(path);
  return node.is(Node::Kind::number) ? std::optional(node.number) : std::nullopt;
}

std::vector<std::string> Values::texts(std::string_view path) {
  std::vector<std::string> texts;
  for (const Node& item : get(path).items) texts.push_back(item.text);
  return texts;
}

std::string Values::place(std::string_view path) {
  const Entry* entry = find(path);
  const bool given = entry != nullptr && (entry->source.kind == Source::Kind::file ||
                                          entry->source.kind == Source::Kind::set);
  return given ? entry->source.to_string() : std::string(path);
}

bool Values::is_given(std::string_view path) {
  const Entry* entry = find(path);
  return entry != nullptr && !entry->automatic && entry->value != "null";
}

void Values::derive(std::string_view path, const Node& value, std::string reason) {
  Entry* entry = find(path);
  TESSERA_CHECK(entry != nullptr, Code::internal, fmt::format("no entry {}", path));
  entry->value = to_json_text(value);
  entry->source = {Source::Kind::derived, "", 0, std::move(reason)};
  entry->automatic = true;
}

}  // namespace tessera::config
