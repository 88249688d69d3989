// SPDX-License-Identifier: Apache-2.0
#include "config/walk.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "tessera/base/nearest_name.hpp"

#include "config/parse.hpp"

namespace tessera::config {
namespace {

std::vector<std::string> names_of(const Branch& branch) {
  std::vector<std::string> names;
  for (const auto& [name, child] : branch.children)
    if (name != "*") names.push_back(name);
  return names;
}

std::string list_names(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 12;
  const auto end = names.begin() + static_cast<std::ptrdiff_t>(std::min(kShown, names.size()));
  return fmt::format("{}{}", fmt::join(names.begin(), end, ", "),
                     names.size() > kShown ? ", …" : "");
}

class Walker {
 public:
  explicit Walker(Problems& problems) : problems_(problems) {}

  std::vector<Given> walk(const Node& root) {
    section(root, key_tree(), "");
    return std::move(given_);
  }

 private:
  void section(const Node& map, const Branch& branch, const std::string& prefix) {
    for (std::size_t i = 0; i < map.keys.size(); ++i) {
      const std::string path = prefix.empty() ? map.keys[i] : prefix + "." + map.keys[i];
      const Branch* child = branch.find(map.keys[i]);
      if (child == nullptr)
        unknown(map.keys[i], path, map.items[i], branch);
      else if (child->row != nullptr && !is_of_model(*child->row, model_type_))
        of_another_model(path, map.items[i], *child->row);
      else if (!map.items[i].is(Node::Kind::null))
        visit(map.items[i], *child, path);
    }
  }

  void visit(const Node& value, const Branch& branch, const std::string& path) {
    const bool descend = value.is(Node::Kind::map) && !branch.children.empty();
    if (branch.row != nullptr && (!descend || branch.row->status == Status::not_yet)) {
      if (check_value(path, *branch.row, value, problems_))
        given_.push_back({path, branch.row, value});
    } else if (!descend) {
      problems_.add(Code::invalid_config,
                    fmt::format("{}: `{}` is {}; it must be a section with keys like {}",
                                value.source.to_string(), path, describe(value),
                                list_names(names_of(branch))));
    }
    if (descend && (path != "model" || is_known_model(value))) section(value, branch, path);
  }

  /// Keys of another architecture would all be unknown, so its name is all there is to say.
  bool is_known_model(const Node& model) {
    const Node* type = model.find("model_type");
    if (type != nullptr) model_type_ = type->text;
    const char* const path = "model.model_type";
    return type == nullptr || check_value(path, *find_row(path), *type, problems_);
  }

  void of_another_model(const std::string& path, const Node& value, const Row& row) {
    problems_.add(Code::invalid_config,
                  fmt::format("{}: `{}` is of model_type {}, not of {}", value.source.to_string(),
                              path, fmt::join(row.model_types, " and "), model_type_));
  }

  void unknown(const std::string& key, const std::string& path, const Node& value,
               const Branch& branch) {
    problems_.add(
        Code::invalid_config,
        fmt::format("{}: unknown key `{}`{}", value.source.to_string(), path, advice(key, branch)));
  }

  Problems& problems_;
  std::string model_type_ = kUsualModel;
  std::vector<Given> given_;
};

bool within(const Type& type, double value) {
  const bool low = type.above_minimum ? value > type.minimum : value >= type.minimum;
  const bool high = type.below_maximum ? value < type.maximum : value <= type.maximum;
  return low && high;
}

bool list_fits(const Type& type, const Node& list) {
  return std::all_of(list.items.begin(), list.items.end(), [&](const Node& item) {
    if (type.items == Type::text) return item.is(Node::Kind::text);
    if (type.items == Type::number) return item.is(Node::Kind::number);
    return true;
  });
}

bool text_fits(const Type& type, const Node& value) {
  if (type.automatic && value.text == "auto") return true;
  const bool one_of_list = (type.kinds & Type::list) && type.items == Type::text;
  if (one_of_list) return true;
  if (!(type.kinds & Type::text)) return false;
  return type.choices.empty() ||
         std::find(type.choices.begin(), type.choices.end(), value.text) != type.choices.end();
}

bool fits(const Type& type, const Node& value) {
  if (type.kinds == 0) return true;
  switch (value.kind) {
    case Node::Kind::null:
      return true;
    case Node::Kind::boolean:
      return type.kinds & Type::boolean;
    case Node::Kind::number:
      return (type.kinds & Type::number) && (!type.whole || value.whole) &&
             within(type, value.number);
    case Node::Kind::text:
      return text_fits(type, value);
    case Node::Kind::list:
      return (type.kinds & Type::list) && list_fits(type, value);
    case Node::Kind::map:
      return type.kinds & Type::map;
  }
  return false;
}

/// What a frequent slip should have been.
std::string hint_for(const Row& row, const Node& value) {
  if (value.is_text("auto") && !row.note.empty() && row.later.empty()) return "; " + row.note;
  if (value.is(Node::Kind::text)) {
    Node number;
    if ((row.type.kinds & Type::number) && parse_number(value.text, number))
      return " (without quotes)";
    if (!row.type.choices.empty()) return did_you_mean(value.text, row.type.choices);
  }
  if (value.is(Node::Kind::number) && (row.type.kinds & Type::text)) return " (in quotes)";
  return "";
}

/// The path that ends in `key` when there is one, or one supported; "" when that is not clear.
std::string only_path_to(const std::string& key) {
  std::vector<std::string> all, supported;
  for (const Row& row : table()) {
    if (!row.path.ends_with("." + key) || row.path.find('*') != std::string::npos) continue;
    all.push_back(row.path);
    if (row.status == Status::supported) supported.push_back(row.path);
  }
  if (supported.size() == 1) return supported.front();
  return all.size() == 1 ? all.front() : "";
}

bool is_off(const Row& row, const Node& value) {
  if (value.is(Node::Kind::map)) return value.keys.empty();
  if (value == parse_json(row.fallback, row.path)) return true;
  const std::string text = to_json_text(value);
  return std::find(row.off.begin(), row.off.end(), text) != row.off.end();
}

std::string what_instead(const Row& row) {
  if (!row.note.empty()) return row.note;
  return row.fallback == "null" || row.fallback == "{}"
             ? std::string("remove it")
             : fmt::format("remove it or set it to {}", row.fallback);
}

}  // namespace

bool check_value(const std::string& path, const Row& row, const Node& value, Problems& problems) {
  if (!fits(row.type, value)) {
    problems.add(Code::invalid_config,
                 fmt::format("{}: `{}` is {}; it must be {}{}", value.source.to_string(), path,
                             describe(value), row.type.to_string(), hint_for(row, value)));
    return false;
  }
  const bool later =
      std::find(row.later.begin(), row.later.end(), to_json_text(value)) != row.later.end();
  if (later || (row.status == Status::not_yet && !is_off(row, value))) {
    problems.add(Code::not_supported,
                 fmt::format("{}: `{}` is {}, which is not available yet; {}",
                             value.source.to_string(), path, describe(value), what_instead(row)));
    return false;
  }
  return true;
}

std::string advice(const std::string& key, const Branch& section) {
  const std::vector<std::string> names = names_of(section);
  const std::string near = did_you_mean(key, names);
  if (!near.empty()) return near;
  const std::string path = only_path_to(key);
  return path.empty() ? advice(key, names) : fmt::format("; did you mean '{}'?", path);
}

std::string advice(const std::string& name, const std::vector<std::string>& known) {
  const std::string near = did_you_mean(name, known);
  if (!near.empty()) return near;
  return known.empty() ? "; nothing is known here" : "; known here: " + list_names(known);
}

std::vector<Given> walk(const Node& root, Problems& problems) {
  return Walker(problems).walk(root);
}

}  // namespace tessera::config
