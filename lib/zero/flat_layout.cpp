// SPDX-License-Identifier: Apache-2.0
// Offsets and slices of flat units.
#include "tessera/zero/flat_layout.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

namespace tessera::zero {

Range intersect(Range a, Range b) {
  const std::int64_t begin = std::max(a.begin, b.begin);
  const std::int64_t end = std::min(a.end(), b.end());
  return end > begin ? Range{begin, end - begin} : Range{begin, 0};
}

FlatLayout::FlatLayout(int ranks) : ranks_(ranks) {
  TESSERA_CHECK(ranks >= 1, Code::invalid_argument,
                fmt::format("a layout needs at least one rank, not {}", ranks));
}

int FlatLayout::begin_unit(std::string name) {
  FlatUnit unit;
  unit.name = std::move(name);
  unit.first_parameter = static_cast<int>(parameters_.size());
  unit.start = padded_;
  units_.push_back(std::move(unit));
  return static_cast<int>(units_.size()) - 1;
}

int FlatLayout::add(std::string name, Shape shape) {
  TESSERA_CHECK(!units_.empty(), Code::invalid_argument,
                fmt::format("parameter \"{}\" has no unit: call begin_unit first", name));
  const auto index = static_cast<int>(parameters_.size());
  TESSERA_CHECK(indices_.emplace(name, index).second, Code::invalid_argument,
                fmt::format("two parameters are called \"{}\"; names have to differ", name));
  FlatUnit& unit = units_.back();
  const std::int64_t numel = shape.numel();
  const std::int64_t multiple = checked_multiply(ranks_, kAlignment);
  parameters_.push_back(
      {std::move(name), std::move(shape), static_cast<int>(units_.size()) - 1, unit.elements});
  unit.elements = checked_add(unit.elements, numel);
  padded_ -= unit.padded;
  unit.padded = round_up(checked_add(unit.elements, multiple) - multiple, multiple);
  padded_ = checked_add(padded_, unit.padded);
  elements_ = checked_add(elements_, numel);
  ++unit.parameters;
  return index;
}

int FlatLayout::find(const std::string& name) const {
  const auto found = indices_.find(name);
  return found == indices_.end() ? -1 : found->second;
}

Range FlatLayout::slice(int u, int rank) const {
  const std::int64_t count = slice_elements(u);
  return {rank * count, count};
}

Range FlatLayout::owned(int i, int rank) const {
  const FlatParameter& parameter = this->parameter(i);
  Range range = slice(parameter.unit, rank);
  range.begin -= parameter.offset;
  Range own = intersect(range, {0, parameter.numel()});
  if (own.count == 0) own.begin = 0;
  return own;
}

std::vector<FlatPiece> FlatLayout::pieces(int u, Range range) const {
  const FlatUnit& unit = this->unit(u);
  const auto first = parameters_.begin() + unit.first_parameter;
  // The last parameter that starts at or before the range; those of zero elements cover nothing.
  auto at = std::upper_bound(
      first, first + unit.parameters, range.begin,
      [](std::int64_t begin, const FlatParameter& p) { return begin < p.offset + p.numel(); });
  std::vector<FlatPiece> pieces;
  for (; at != first + unit.parameters && at->offset < range.end(); ++at) {
    const Range inside = intersect(range, {at->offset, at->numel()});
    if (inside.count == 0) continue;
    pieces.push_back({static_cast<int>(at - parameters_.begin()), inside.begin - at->offset,
                      inside.begin, inside.count});
  }
  return pieces;
}

}  // namespace tessera::zero
