// SPDX-License-Identifier: Apache-2.0
// The one partition geometry of all ZeRO stages: units laid out flat, a slice of each for each
// rank.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "tessera/base/shape.hpp"

namespace tessera::zero {

/// Alignment of slices in elements (64 bytes of fp32).
inline constexpr std::int64_t kAlignment = 16;

/// `count` consecutive elements from `begin`.
struct Range {
  std::int64_t begin = 0;
  std::int64_t count = 0;
  std::int64_t end() const { return begin + count; }
  bool operator==(const Range&) const = default;
};
Range intersect(Range a, Range b);

struct FlatParameter {
  std::string name;
  Shape shape;
  int unit = 0;
  std::int64_t offset = 0;  // of its first element inside the unit
  std::int64_t numel() const { return shape.numel(); }
};

struct FlatUnit {
  std::string name;
  int first_parameter = 0;
  int parameters = 0;         // they are neighbours: first_parameter, first_parameter + 1, …
  std::int64_t elements = 0;  // Σ numel
  std::int64_t padded = 0;    // round_up(elements, ranks * kAlignment)
  std::int64_t start = 0;     // Σ padded of the units before it
};

/// A part of one parameter inside a range of its unit.
struct FlatPiece {
  int parameter;
  std::int64_t begin;       // first element, counted inside the parameter
  std::int64_t unit_begin;  // the same element, counted inside the unit
  std::int64_t count;
};

/// Pure arithmetic: no memory, no communication, the same object on every rank. Parameters of a
/// unit lie one after the other without gaps, zeros follow up to `padded`, rank r owns elements [r
/// * slice, (r + 1) * slice) of every unit. Every query costs O(1) or O(parameters of the unit),
/// whatever the rank count.
class FlatLayout {
 public:
  explicit FlatLayout(int ranks);

  /// Later parameters belong to this unit. A unit may stay empty.
  int begin_unit(std::string name);
  /// Returns the parameter's index. Errors: invalid_argument for a name that is taken or when no
  /// unit has begun.
  int add(std::string name, Shape shape);

  int ranks() const { return ranks_; }
  const std::vector<FlatUnit>& units() const { return units_; }
  const std::vector<FlatParameter>& parameters() const { return parameters_; }
  const FlatUnit& unit(int u) const { return units_.at(static_cast<std::size_t>(u)); }
  const FlatParameter& parameter(int i) const {
    return parameters_.at(static_cast<std::size_t>(i));
  }
  /// Index of the parameter with this name; -1 if there is none.
  int find(const std::string& name) const;

  /// Σ elements: logical parameters.
  std::int64_t elements() const { return elements_; }
  /// Σ padded: what is partitioned and sent.
  std::int64_t padded() const { return padded_; }
  std::int64_t slice_elements(int u) const { return unit(u).padded / ranks_; }
  /// Where rank's slices of all units lie when they are stored one after the other.
  std::int64_t slice_start(int u) const { return unit(u).start / ranks_; }
  /// Rank's slice, counted inside the unit.
  Range slice(int u, int rank) const;
  /// The part of parameter i that `rank` owns, counted inside the parameter: one range, which may
  /// be empty.
  Range owned(int i, int rank) const;
  /// The parameters inside a range of the unit, in order; padding belongs to none.
  std::vector<FlatPiece> pieces(int u, Range range) const;

 private:
  int ranks_;
  std::vector<FlatUnit> units_;
  std::vector<FlatParameter> parameters_;
  std::unordered_map<std::string, int> indices_;
  std::int64_t elements_ = 0;
  std::int64_t padded_ = 0;
};

}  // namespace tessera::zero
