// SPDX-License-Identifier: Apache-2.0
// The one table of known keys: the reader, the printing and doc/configuration.md all use it.
#pragma once

#include <algorithm>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "config/node.hpp"

namespace tessera::config {

/// What a key may hold. Kinds can be combined.
struct Type {
  enum : unsigned { boolean = 1, number = 2, text = 4, list = 8, map = 16 };
  unsigned kinds = 0;
  bool whole = false;      ///< numbers: integers only
  bool automatic = false;  ///< the word "auto" is possible
  unsigned items = 0;      ///< kinds of a list's items; 0: not checked
  double minimum = -std::numeric_limits<double>::infinity();
  double maximum = std::numeric_limits<double>::infinity();
  bool above_minimum = false;  ///< minimum itself is not possible
  bool below_maximum = false;
  std::vector<std::string> choices;  ///< texts

  Type or_auto() const;
  Type or_(const Type& other) const;
  /// "an integer ≥ 1", "one of none, selective, full", …
  std::string to_string() const;
};

Type flag();
Type any_integer();
Type integer(double minimum, double maximum = std::numeric_limits<double>::infinity());
Type any_number();
Type number_from(double minimum);                   ///< [minimum, ∞)
Type number_above(double minimum);                  ///< (minimum, ∞)
Type number_in(double minimum, double maximum);     ///< [minimum, maximum]
Type number_below(double minimum, double maximum);  ///< [minimum, maximum)
Type any_text();
Type one_of(std::vector<std::string> choices);
Type texts();    ///< a list of texts; one text alone counts as a list of one
Type numbers();  ///< a list of numbers
Type any_list();
Type any_map();  ///< content not checked

enum class Status {
  supported,
  no_effect,  ///< accepted; `note` says why nothing changes
  not_yet,    ///< an error when it is switched on; `note` says what to do instead
  dependent,  ///< belongs to a not_yet key, which speaks for it
};

/// A key under its full path. A segment `*` matches any name.
struct Row {
  std::string path;
  Type type;
  std::string fallback;  ///< JSON text; "null": nothing
  Status status;
  std::string meaning;
  std::string note;
  std::vector<std::string> off;  ///< JSON texts besides the fallback that switch a not_yet key off
  std::vector<std::string>
      later;  ///< values (JSON texts) of a supported key that are not available
  std::vector<std::string>
      model_types;  ///< of an inline model's key: those that have it; empty: all

  Row& with_off(std::vector<std::string> values);
  Row& with_later(std::vector<std::string> values, std::string reason);
};

/// The type of an inline model that does not say its type (which is an error of its own).
inline constexpr const char* kUsualModel = "gpt2";
inline bool is_of_model(const Row& row, const std::string& type) {
  return row.model_types.empty() ||
         std::ranges::find(row.model_types, type) != row.model_types.end();
}

/// Builds rows under a common prefix.
class RowList {
 public:
  explicit RowList(std::vector<Row>& rows) : rows_(rows) {}
  void section(std::string prefix) { prefix_ = std::move(prefix); }
  /// Later rows are of these types of model; none ends that.
  void of_models(std::vector<std::string> types) { model_types_ = std::move(types); }

  Row& supported(std::string_view key, Type type, std::string fallback, std::string meaning);
  Row& no_effect(std::string_view key, Type type, std::string fallback, std::string reason);
  Row& not_yet(std::string_view key, Type type, std::string fallback, std::string meaning,
               std::string instead = "");
  Row& dependent(std::string_view key, Type type, std::string fallback, std::string meaning = "");

 private:
  Row& add(std::string_view key, Type type, std::string fallback, Status status,
           std::string meaning, std::string note);
  std::vector<Row>& rows_;
  std::string prefix_;
  std::vector<std::string> model_types_;
};

// Each file adds a part; the order is that of the documentation.
void add_run_rows(RowList& rows);
void add_model_rows(RowList& rows);
void add_engine_rows(RowList& rows);
void add_precision_rows(RowList& rows);
void add_zero_rows(RowList& rows);
void add_offload_rows(RowList& rows);
void add_training_rows(RowList& rows);
void add_observability_rows(RowList& rows);
void add_data_efficiency_rows(RowList& rows);
void add_checkpoint_rows(RowList& rows);
void add_parallel_rows(RowList& rows);
void add_compression_rows(RowList& rows);

const std::vector<Row>& table();

/// Other names of keys and sections, full paths: that name → the table's, in the same section.
const std::map<std::string, std::string>& aliases();

/// An optimizer or schedule: what its `params` may hold. Rows have bare names as paths.
struct NamedType {
  std::string name;
  Status status;
  std::string note;
  std::vector<Row> parameters;
};
const std::vector<NamedType>& optimizer_types();
const std::vector<NamedType>& scheduler_types();

/// The keys as a tree.
struct Branch {
  std::string path;
  std::map<std::string, Branch> children;
  const Row* row = nullptr;
  /// The child of that name, or of `*`; nullptr for an unknown key.
  const Branch* find(const std::string& key) const;
};
const Branch& key_tree();
/// nullptr for a path that is not in the table.
const Row* find_row(std::string_view path);

std::vector<std::string> split_path(std::string_view path);

}  // namespace tessera::config
