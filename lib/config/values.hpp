// SPDX-License-Identifier: Apache-2.0
// Entries of a configuration by path.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/node.hpp"

namespace tessera::config {

/// A view: the vector must outlive it.
class Values {
 public:
  explicit Values(std::vector<Entry>& entries) : entries_(entries) {}

  Entry* find(std::string_view path);
  bool has(std::string_view path) { return find(path) != nullptr; }
  /// Null for an entry that is not there.
  Node get(std::string_view path);
  /// A whole number; nullopt for null, "auto" and what is not there.
  std::optional<std::int64_t> integer(std::string_view path);
  std::optional<double> number(std::string_view path);
  bool flag(std::string_view path) { return get(path).boolean; }
  std::string text(std::string_view path) { return get(path).text; }
  std::vector<std::string> texts(std::string_view path);

  /// Where the value was given: "run.yaml:12"; the path's own name when it was not.
  std::string place(std::string_view path);
  /// True while the value is the user's own and not one to be filled in.
  bool is_given(std::string_view path);
  void derive(std::string_view path, const Node& value, std::string reason);

 private:
  std::vector<Entry>& entries_;
};

}  // namespace tessera::config
