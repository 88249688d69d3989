// SPDX-License-Identifier: Apache-2.0
#include "tessera/base/mesh_shape.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

namespace tessera {
namespace {

std::size_t index_of(Axis axis) {
  return static_cast<std::size_t>(axis);
}

MeshCoordinates sizes_of(const MeshShape& shape) {
  return {shape.pipeline, shape.data, shape.sequence, shape.tensor};
}

/// Ranks from one place to the next along each axis.
MeshCoordinates strides_of(const MeshShape& shape) {
  const int sequence = shape.tensor, data = sequence * shape.sequence;
  return {data * shape.data, data, sequence, 1};
}

Axis parse_axis(const std::string& name) {
  for (const Axis axis : kAxes)
    if (name == to_string(axis)) return axis;
  fail(Code::invalid_argument,
       fmt::format("the mesh has no axis '{}': pipeline, data, sequence, tensor, or several joined "
                   "by +",
                   name));
}

void check_sizes(const MeshShape& shape) {
  for (const Axis axis : kAxes) {
    const int size = sizes_of(shape)[index_of(axis)];
    TESSERA_CHECK(
        size > 0 || (axis == Axis::data && size == 0), Code::invalid_config,
        fmt::format("mesh.{} is {}: sizes of the mesh are at least 1", to_string(axis), size));
  }
}

/// Axes that changed (twice for a new one), then the factors by which they did.
std::pair<int, double> distance(const MeshShape& wanted, const MeshShape& other) {
  std::pair<int, double> far = {0, 0};
  for (std::size_t i = 0; i < kAxes.size(); ++i) {
    const int from = sizes_of(wanted)[i], to = sizes_of(other)[i];
    if (from == 0 || from == to) continue;
    far.first += from == 1 ? 2 : 1;
    far.second += std::abs(std::log(static_cast<double>(to) / from));
  }
  return far;
}

std::vector<int> divisors(int number) {
  std::vector<int> found;
  for (int i = 1; i <= number; ++i)
    if (number % i == 0) found.push_back(i);
  return found;
}

/// "pipeline 2 x data 4": axes of size 1 go without saying.
std::string short_text(const MeshShape& shape) {
  std::string text;
  for (const Axis axis : kAxes) {
    const int size = sizes_of(shape)[index_of(axis)];
    if (size > 1) text += fmt::format("{}{} {}", text.empty() ? "" : " x ", to_string(axis), size);
  }
  return text.empty() ? "data 1" : text;
}

/// What would work: other shapes for these ranks, other numbers of ranks for this shape.
std::string advice(const MeshShape& shape, int ranks) {
  std::string text = fmt::format(". Nearest for {} ranks: ", ranks);
  const char* separator = "";
  for (const MeshShape& near : shape.nearest(ranks, 3))
    text += std::exchange(separator, "; ") + short_text(near);
  const std::int64_t places = shape.places();
  if (shape.data > 0) return text + fmt::format(". As it is, the mesh takes {} ranks", places);
  const std::int64_t below = ranks / places * places;
  text += ". As it is, the mesh takes ";
  return text + (below > 0 ? fmt::format("{} or {} ranks", below, below + places)
                           : fmt::format("at least {} ranks", places));
}

}  // namespace

const char* to_string(Axis axis) {
  switch (axis) {
    case Axis::pipeline:
      return "pipeline";
    case Axis::data:
      return "data";
    case Axis::sequence:
      return "sequence";
    default:
      return "tensor";
  }
}

Axes::Axes(const std::string& names) {
  for (std::size_t begin = 0;;) {
    const std::size_t end = names.find('+', begin);
    bits_ |= Axes(parse_axis(names.substr(begin, end - begin))).bits_;
    if (end == std::string::npos) return;
    begin = end + 1;
  }
}

std::string Axes::to_string() const {
  std::string text;
  for (const Axis axis : kAxes)
    if (has(axis)) text += fmt::format("{}{}", text.empty() ? "" : "+", tessera::to_string(axis));
  return text;
}

MeshShape MeshShape::resolved(int ranks) const {
  check_sizes(*this);
  const std::int64_t taken = places();
  MeshShape shape = *this;
  if (data == 0) {
    TESSERA_CHECK(ranks % taken == 0, Code::invalid_config,
                  fmt::format("the mesh pipeline {} x sequence {} x tensor {} = {} does not divide "
                              "the {} ranks, so nothing whole is left for data{}",
                              pipeline, sequence, tensor, taken, ranks, advice(*this, ranks)));
    shape.data = static_cast<int>(ranks / taken);
    return shape;
  }
  TESSERA_CHECK(taken == ranks, Code::invalid_config,
                fmt::format("the mesh {} has {} places, but there are {} ranks{}", to_string(),
                            taken, ranks, advice(*this, ranks)));
  return shape;
}

std::int64_t MeshShape::places() const {
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  std::int64_t places = 1;
  for (const int size : sizes_of(*this))
    if (size > 0) places = places > kMost / size ? kMost : places * size;
  return places;
}

std::vector<MeshShape> MeshShape::nearest(int ranks, int most) const {
  std::vector<std::pair<std::pair<int, double>, MeshShape>> found;
  for (const int p : divisors(ranks))
    for (const int s : divisors(ranks / p))
      for (const int t : divisors(ranks / p / s)) {
        const MeshShape shape = {p, ranks / p / s / t, s, t};
        found.push_back({distance(*this, shape), shape});
      }
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<MeshShape> shapes;
  for (const auto& [far, shape] : found) {
    if (std::ssize(shapes) == most) break;
    shapes.push_back(shape);
  }
  return shapes;
}

int MeshShape::size(const Axes& axes) const {
  int product = 1;
  for (const Axis axis : kAxes)
    if (axes.has(axis)) product *= sizes_of(*this)[index_of(axis)];
  return product;
}

MeshCoordinates MeshShape::coordinates(int rank) const {
  MeshCoordinates place{};
  const MeshCoordinates sizes = sizes_of(*this);
  for (std::size_t i = sizes.size(); i-- > 0; rank /= sizes[i]) place[i] = rank % sizes[i];
  return place;
}

int MeshShape::rank_of(const MeshCoordinates& place) const {
  int rank = 0;
  for (std::size_t i = 0; i < place.size(); ++i) rank += place[i] * strides_of(*this)[i];
  return rank;
}

std::vector<int> MeshShape::group(const Axes& axes, int rank) const {
  const MeshCoordinates sizes = sizes_of(*this), strides = strides_of(*this);
  const MeshCoordinates place = coordinates(rank);
  std::vector<int> members = {rank};
  for (const Axis axis : kAxes)
    if (axes.has(axis)) members[0] -= place[index_of(axis)] * strides[index_of(axis)];
  // Each further axis repeats what is there; slower axes come later, so ranks ascend.
  for (std::size_t i = kAxes.size(); i-- > 0;) {
    if (!axes.has(kAxes[i])) continue;
    const std::size_t before = members.size();
    for (int step = 1; step < sizes[i]; ++step)
      for (std::size_t m = 0; m < before; ++m) members.push_back(members[m] + step * strides[i]);
  }
  return members;
}

std::vector<std::vector<int>> MeshShape::groups(const Axes& axes) const {
  std::vector<std::vector<int>> all;
  for (int rank = 0; rank < ranks(); ++rank)
    if (position(axes, rank) == 0) all.push_back(group(axes, rank));
  return all;
}

int MeshShape::position(const Axes& axes, int rank) const {
  const MeshCoordinates place = coordinates(rank);
  int position = 0;
  for (const Axis axis : kAxes)
    if (axes.has(axis))
      position = position * sizes_of(*this)[index_of(axis)] + place[index_of(axis)];
  return position;
}

std::optional<int> MeshShape::neighbour(Axis axis, int rank, int steps) const {
  const int to = position(axis, rank) + steps;
  if (to < 0 || to >= size(axis)) return std::nullopt;
  return rank + steps * strides_of(*this)[index_of(axis)];
}

int MeshShape::ring_neighbour(Axis axis, int rank, int steps) const {
  const int from = position(axis, rank), around = size(axis);
  const int to = ((from + steps) % around + around) % around;
  return rank + (to - from) * strides_of(*this)[index_of(axis)];
}

std::string MeshShape::to_string() const {
  return fmt::format("pipeline {} x data {} x sequence {} x tensor {}", pipeline, data, sequence,
                     tensor);
}

}  // namespace tessera
