// SPDX-License-Identifier: Apache-2.0
// A parsed value of YAML or JSON that remembers where it stood.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tessera/config/run_config.hpp"

namespace tessera::config {

struct Node {
  enum class Kind { null, boolean, number, text, list, map };

  Kind kind = Kind::null;
  bool boolean = false;
  double number = 0;
  /// The exact value of a whole number that fits; 5e8 counts as whole.
  std::int64_t integer = 0;
  bool whole = false;
  std::string text;               ///< of Kind::text
  std::vector<Node> items;        ///< of a list, or the values of a map
  std::vector<std::string> keys;  ///< of a map, beside items
  Source source;

  bool is(Kind wanted) const { return kind == wanted; }
  /// True for the plain or quoted word, e.g. "auto".
  bool is_text(std::string_view word) const { return kind == Kind::text && text == word; }
  /// nullptr when a map has no such key.
  Node* find(std::string_view key);
  const Node* find(std::string_view key) const;
  /// The value of `key`, added as null at the end when it is missing.
  Node& at_or_add(std::string_view key);
  bool operator==(const Node& other) const;
};

Node make_text(std::string text);
Node make_integer(std::int64_t value);
Node make_number(double value);
Node make_boolean(bool value);

/// Number of a decimal literal (12, -3, 6e-4, .5); false when it is none or not finite.
bool parse_number(std::string_view literal, Node& node);

/// Compact JSON; whole numbers as integers, others with the fewest digits that read back exactly.
std::string to_json_text(const Node& node);
/// "a string" with its quotes and escapes.
std::string json_string(std::string_view text);
/// For messages: `"many"`, `12`, `a list`, shortened.
std::string describe(const Node& node);

/// Deepest nesting and largest number of values of a file: a guard against damaged or hostile
/// input.
inline constexpr int kMaxDepth = 64;
inline constexpr std::size_t kMaxNodes = 200'000;

}  // namespace tessera::config
