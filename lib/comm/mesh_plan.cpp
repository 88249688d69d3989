// SPDX-License-Identifier: Apache-2.0
#include "tessera/comm/mesh_plan.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace tessera {

MeshPlan::MeshPlan(const MeshShape& shape, NodeMap nodes)
    : nodes_(std::move(nodes)),
      shape_(shape.resolved(static_cast<int>(nodes_.node_of.size()))),
      rank_at_(nodes_.node_of.size()),
      place_of_(nodes_.node_of.size()) {
  std::iota(rank_at_.begin(), rank_at_.end(), 0);
  std::stable_sort(rank_at_.begin(), rank_at_.end(), [&](int a, int b) {
    return nodes_.node_of[static_cast<std::size_t>(a)] <
           nodes_.node_of[static_cast<std::size_t>(b)];
  });
  for (std::size_t place = 0; place < rank_at_.size(); ++place)
    place_of_[static_cast<std::size_t>(rank_at_[place])] = static_cast<int>(place);
}

std::vector<int> MeshPlan::group(const Axes& axes, int rank) const {
  std::vector<int> members = shape_.group(axes, place_of(rank));
  for (int& member : members) member = rank_at(member);
  return members;
}

std::vector<std::vector<int>> MeshPlan::groups(const Axes& axes) const {
  std::vector<std::vector<int>> all = shape_.groups(axes);
  for (std::vector<int>& group : all)
    for (int& member : group) member = rank_at(member);
  return all;
}

std::optional<int> MeshPlan::neighbour(Axis axis, int rank, int steps) const {
  const std::optional<int> place = shape_.neighbour(axis, place_of(rank), steps);
  return place ? std::optional(rank_at(*place)) : std::nullopt;
}

int MeshPlan::ring_neighbour(Axis axis, int rank, int steps) const {
  return rank_at(shape_.ring_neighbour(axis, place_of(rank), steps));
}

std::vector<std::vector<int>> MeshPlan::crossing_groups(const Axes& axes) const {
  std::vector<std::vector<int>> crossing = groups(axes);
  std::erase_if(crossing, [&](const std::vector<int>& group) {
    return nodes_.restrict_to(group).nodes() == 1;
  });
  return crossing;
}

std::vector<std::string> MeshPlan::warnings() const {
  std::vector<std::string> lines;
  for (const Axis axis : {Axis::tensor, Axis::sequence})
    if (std::string line = warning(axis); !line.empty()) lines.push_back(std::move(line));
  return lines;
}

namespace {

int& size_of(MeshShape& shape, Axis axis) {
  return axis == Axis::tensor ? shape.tensor : shape.sequence;
}

/// The largest smaller size of `axis` whose groups stay inside nodes; the rest goes to data.
int largest_inside(const MeshPlan& plan, Axis axis) {
  const int size = plan.shape().size(axis);
  for (int smaller = size / 2; smaller > 1; --smaller) {
    if (size % smaller != 0) continue;
    MeshShape shape = plan.shape();
    size_of(shape, axis) = smaller;
    shape.data *= size / smaller;
    if (MeshPlan(shape, plan.nodes()).crossing_groups(axis).empty()) return smaller;
  }
  return 1;
}

/// "0, 1, 2, 3", or "0, 1, 2, …" for many.
std::string list_few(const std::vector<int>& numbers) {
  constexpr std::size_t kShown = 8;
  const bool many = numbers.size() > kShown;
  const auto end = numbers.begin() + static_cast<std::ptrdiff_t>(many ? 3 : numbers.size());
  return fmt::format("{}{}", fmt::join(numbers.begin(), end, ", "), many ? ", …" : "");
}

}  // namespace

std::string MeshPlan::warning(Axis axis) const {
  const std::vector<std::vector<int>> crossing = crossing_groups(axis);
  if (crossing.empty()) return "";
  const std::vector<int>& first = crossing.front();
  std::vector<int> nodes;
  for (const int rank : first) nodes.push_back(nodes_.node_of[static_cast<std::size_t>(rank)]);
  nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
  const int size = shape_.size(axis), inside = largest_inside(*this, axis);
  const int span = axis == Axis::tensor ? size : size * shape_.tensor;
  return fmt::format(
      "mesh.{0} is {1}, and {2} of {3} {0} groups cross nodes (ranks {4} are on nodes {5}): every "
      "{6} waits for the network. Make mesh.{0} {7}{8}, or start a multiple of {9} ranks on "
      "each node",
      to_string(axis), size, crossing.size(), shape_.ranks() / size, list_few(first),
      list_few(nodes), axis == Axis::tensor ? "matrix product" : "attention", inside,
      inside > 1 ? ", which fits inside the nodes" : " and give its ranks to pipeline or data",
      span);
}

}  // namespace tessera
