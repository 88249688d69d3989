// SPDX-License-Identifier: Apache-2.0
// Values of a parsed file and their JSON text.
#include "config/node.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <system_error>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace tessera::config {
namespace {

// Beyond this a double no longer holds every integer, so 1e17 is not accepted for one.
constexpr double kLargestExact = 9007199254740992.0;

std::string number_text(const Node& node) {
  return node.whole ? fmt::format("{}", node.integer) : fmt::format("{}", node.number);
}

bool looks_decimal(std::string_view literal) {
  bool digit = false;
  for (const char c : literal) {
    if (c >= '0' && c <= '9')
      digit = true;
    else if (std::string_view("+-.eE").find(c) == std::string_view::npos)
      return false;
  }
  return digit;
}

}  // namespace

Node* Node::find(std::string_view key) {
  for (std::size_t i = 0; i < keys.size(); ++i)
    if (keys[i] == key) return &items[i];
  return nullptr;
}

const Node* Node::find(std::string_view key) const {
  return const_cast<Node*>(this)->find(key);
}

Node& Node::at_or_add(std::string_view key) {
  if (Node* found = find(key)) return *found;
  keys.emplace_back(key);
  return items.emplace_back();
}

bool Node::operator==(const Node& other) const {
  return kind == other.kind && boolean == other.boolean && number == other.number &&
         whole == other.whole && integer == other.integer && text == other.text &&
         keys == other.keys && items == other.items;
}

Node make_text(std::string text) {
  Node node;
  node.kind = Node::Kind::text;
  node.text = std::move(text);
  return node;
}

Node make_integer(std::int64_t value) {
  Node node;
  node.kind = Node::Kind::number;
  node.number = static_cast<double>(value);
  node.integer = value;
  node.whole = true;
  return node;
}

Node make_number(double value) {
  Node node;
  node.kind = Node::Kind::number;
  node.number = value;
  node.whole = std::abs(value) <= kLargestExact && std::floor(value) == value;
  if (node.whole) node.integer = static_cast<std::int64_t>(value);
  return node;
}

Node make_boolean(bool value) {
  Node node;
  node.kind = Node::Kind::boolean;
  node.boolean = value;
  return node;
}

bool parse_number(std::string_view literal, Node& node) {
  if (!looks_decimal(literal)) return false;
  if (literal.front() == '+') literal.remove_prefix(1);
  if (literal.empty() || literal.front() == '+') return false;
  const char* const end = literal.data() + literal.size();
  std::int64_t integer = 0;
  if (const auto [stop, error] = std::from_chars(literal.data(), end, integer);
      error == std::errc() && stop == end) {
    const Source source = std::move(node.source);
    node = make_integer(integer);
    node.source = source;
    return true;
  }
  double value = 0;
  const auto [stop, error] = std::from_chars(literal.data(), end, value);
  if (error != std::errc() || stop != end || !std::isfinite(value)) return false;
  const Source source = std::move(node.source);
  node = make_number(value);
  node.source = source;
  return true;
}

std::string json_string(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string to_json_text(const Node& node) {
  switch (node.kind) {
    case Node::Kind::null:
      return "null";
    case Node::Kind::boolean:
      return node.boolean ? "true" : "false";
    case Node::Kind::number:
      return number_text(node);
    case Node::Kind::text:
      return json_string(node.text);
    default:
      break;
  }
  const bool map = node.is(Node::Kind::map);
  std::string text(1, map ? '{' : '[');
  for (std::size_t i = 0; i < node.items.size(); ++i) {
    if (i > 0) text += ", ";
    if (map) text += json_string(node.keys[i]) + ": ";
    text += to_json_text(node.items[i]);
  }
  return text + (map ? '}' : ']');
}

std::string describe(const Node& node) {
  constexpr std::size_t kLongest = 60;
  const std::string text = to_json_text(node);
  if (text.size() <= kLongest) return text;
  return node.is(Node::Kind::list)  ? fmt::format("a list of {}", node.items.size())
         : node.is(Node::Kind::map) ? fmt::format("a section of {} keys", node.items.size())
                                    : text.substr(0, kLongest) + "…";
}

}  // namespace tessera::config
