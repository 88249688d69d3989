// SPDX-License-Identifier: Apache-2.0
// Building blocks of the table of keys, and looking things up in it.
#include "config/table.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace tessera::config {
namespace {

std::vector<Row> build_table() {
  std::vector<Row> rows;
  RowList list(rows);
  add_run_rows(list);
  add_model_rows(list);
  add_engine_rows(list);
  add_precision_rows(list);
  add_zero_rows(list);
  add_offload_rows(list);
  add_training_rows(list);
  add_observability_rows(list);
  add_data_efficiency_rows(list);
  add_checkpoint_rows(list);
  add_parallel_rows(list);
  add_compression_rows(list);
  return rows;
}

Branch build_tree() {
  Branch root;
  for (const Row& row : table()) {
    Branch* at = &root;
    for (const std::string& segment : split_path(row.path)) {
      Branch& child = at->children[segment];
      child.path = at->path.empty() ? segment : at->path + "." + segment;
      at = &child;
    }
    at->row = &row;
  }
  return root;
}

std::string range_text(const Type& type) {
  // A bound that only keeps a number within its C++ type says nothing to a reader.
  constexpr double kTechnical = 1e9;
  const bool low = std::isfinite(type.minimum), high = type.maximum < kTechnical;
  if (low && high) {
    return fmt::format(" in {}{}, {}{}", type.above_minimum ? '(' : '[', type.minimum, type.maximum,
                       type.below_maximum ? ')' : ']');
  }
  if (low) return fmt::format(" {} {}", type.above_minimum ? ">" : "≥", type.minimum);
  return "";
}

std::string list_text(const Type& type) {
  switch (type.items) {
    case Type::text:
      return "a list of texts";
    case Type::number:
      return "a list of numbers";
    default:
      return "a list";
  }
}

}  // namespace

Type Type::or_auto() const {
  Type type = *this;
  type.automatic = true;
  return type;
}

Type Type::or_(const Type& other) const {
  Type type = *this;
  type.kinds |= other.kinds;
  type.automatic |= other.automatic;
  if (other.kinds & number) {
    type.whole = other.whole;
    type.minimum = other.minimum;
    type.maximum = other.maximum;
    type.above_minimum = other.above_minimum;
    type.below_maximum = other.below_maximum;
  }
  if (other.kinds & list) type.items = other.items;
  if (!other.choices.empty()) type.choices = other.choices;
  return type;
}

std::string Type::to_string() const {
  std::vector<std::string> parts;
  if (kinds & boolean) parts.emplace_back("true or false");
  if (kinds & number) parts.push_back((whole ? "an integer" : "a number") + range_text(*this));
  if (kinds & text)
    parts.push_back(choices.empty() ? "a text"
                                    : fmt::format("one of {}", fmt::join(choices, ", ")));
  if (kinds & list) parts.push_back(list_text(*this));
  if (kinds & map) parts.emplace_back("a section");
  if (automatic) parts.emplace_back("auto");
  return fmt::format("{}", fmt::join(parts, ", or "));
}

Type flag() {
  Type type;
  type.kinds = Type::boolean;
  return type;
}
Type any_number() {
  Type type;
  type.kinds = Type::number;
  return type;
}
Type any_integer() {
  Type type = any_number();
  type.whole = true;
  return type;
}
Type integer(double minimum, double maximum) {
  Type type = number_in(minimum, maximum);
  type.whole = true;
  return type;
}
Type number_from(double minimum) {
  Type type = any_number();
  type.minimum = minimum;
  return type;
}
Type number_above(double minimum) {
  Type type = number_from(minimum);
  type.above_minimum = true;
  return type;
}
Type number_in(double minimum, double maximum) {
  Type type = number_from(minimum);
  type.maximum = maximum;
  return type;
}
Type number_below(double minimum, double maximum) {
  Type type = number_in(minimum, maximum);
  type.below_maximum = true;
  return type;
}
Type any_text() {
  Type type;
  type.kinds = Type::text;
  return type;
}
Type one_of(std::vector<std::string> choices) {
  Type type = any_text();
  type.choices = std::move(choices);
  return type;
}
Type any_list() {
  Type type;
  type.kinds = Type::list;
  return type;
}
Type texts() {
  Type type = any_list();
  type.items = Type::text;
  return type;
}
Type numbers() {
  Type type = any_list();
  type.items = Type::number;
  return type;
}
Type any_map() {
  Type type;
  type.kinds = Type::map;
  return type;
}

Row& Row::with_off(std::vector<std::string> values) {
  off = std::move(values);
  return *this;
}

Row& Row::with_later(std::vector<std::string> values, std::string reason) {
  later = std::move(values);
  note = std::move(reason);
  return *this;
}

Row& RowList::add(std::string_view key, Type type, std::string fallback, Status status,
                  std::string meaning, std::string note) {
  std::string path = prefix_.empty() ? std::string(key) : fmt::format("{}.{}", prefix_, key);
  return rows_.emplace_back(Row{std::move(path),
                                std::move(type),
                                std::move(fallback),
                                status,
                                std::move(meaning),
                                std::move(note),
                                {},
                                {},
                                model_types_});
}

Row& RowList::supported(std::string_view key, Type type, std::string fallback,
                        std::string meaning) {
  return add(key, std::move(type), std::move(fallback), Status::supported, std::move(meaning), "");
}
Row& RowList::no_effect(std::string_view key, Type type, std::string fallback, std::string reason) {
  return add(key, std::move(type), std::move(fallback), Status::no_effect, "", std::move(reason));
}
Row& RowList::not_yet(std::string_view key, Type type, std::string fallback, std::string meaning,
                      std::string instead) {
  return add(key, std::move(type), std::move(fallback), Status::not_yet, std::move(meaning),
             std::move(instead));
}
Row& RowList::dependent(std::string_view key, Type type, std::string fallback,
                        std::string meaning) {
  return add(key, std::move(type), std::move(fallback), Status::dependent, std::move(meaning), "");
}

const std::vector<Row>& table() {
  static const std::vector<Row> rows = build_table();
  return rows;
}

const Branch& key_tree() {
  static const Branch root = build_tree();
  return root;
}

const Branch* Branch::find(const std::string& key) const {
  if (const auto found = children.find(key); found != children.end()) return &found->second;
  const auto any = children.find("*");
  return any == children.end() ? nullptr : &any->second;
}

const Row* find_row(std::string_view path) {
  const Branch* at = &key_tree();
  for (const std::string& segment : split_path(path)) {
    at = at->find(segment);
    if (at == nullptr) return nullptr;
  }
  return at->row;
}

std::vector<std::string> split_path(std::string_view path) {
  std::vector<std::string> segments;
  for (std::size_t begin = 0;;) {
    const std::size_t dot = path.find('.', begin);
    segments.emplace_back(path.substr(begin, dot - begin));
    if (dot == std::string_view::npos) return segments;
    begin = dot + 1;
  }
}

}  // namespace tessera::config
