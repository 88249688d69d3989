// SPDX-License-Identifier: Apache-2.0
// Which ranks of a group share a node.
#pragma once

#include <string>
#include <vector>

namespace tessera {

/// node_of[r] is the node of rank r. Nodes are numbered by their first rank; ranks of a node need
/// not be neighbours.
struct NodeMap {
  std::vector<int> node_of;

  int nodes() const;
  std::vector<int> ranks_of(int node) const;
  /// From lists of ranks, e.g. {{0, 1}, {2, 3}}; throws invalid_config unless each rank 0..size-1
  /// is there once.
  static NodeMap from_lists(const std::vector<std::vector<int>>& lists, int size);
  static NodeMap single(int size);
  /// The map of a subgroup, given the parent ranks of its members in order.
  NodeMap restrict_to(const std::vector<int>& members) const;
  std::string to_string() const;  // "[[0,1],[2,3]]"
};

}  // namespace tessera
