// SPDX-License-Identifier: Apache-2.0
// Who works for whom when a group spans nodes.
#pragma once

#include <algorithm>
#include <vector>

#include "tessera/comm/node_map.hpp"

namespace tessera::comm {

/// Each rank has an index inside its node. Of every node, the rank with index i mod (ranks there)
/// works for the ranks with index i elsewhere: the load between nodes is spread over their ranks.
struct NodePlan {
  int rank;
  int node;
  std::vector<std::vector<int>> ranks_of;  ///< by node
  std::vector<int> index_of;               ///< by rank, inside its node
  NodeMap map;

  NodePlan(const NodeMap& nodes, int own_rank) : rank(own_rank), map(nodes) {
    node = map.node_of[static_cast<std::size_t>(rank)];
    index_of.resize(map.node_of.size());
    for (int n = 0; n < map.nodes(); ++n) {
      ranks_of.push_back(map.ranks_of(n));
      for (std::size_t i = 0; i < ranks_of.back().size(); ++i)
        index_of[static_cast<std::size_t>(ranks_of.back()[i])] = static_cast<int>(i);
    }
  }

  int nodes() const { return static_cast<int>(ranks_of.size()); }
  int index(int of_rank) const { return index_of[static_cast<std::size_t>(of_rank)]; }
  const std::vector<int>& local_ranks() const { return ranks_of[static_cast<std::size_t>(node)]; }
  bool is_local(int other) const { return map.node_of[static_cast<std::size_t>(other)] == node; }
  /// The rank of `on_node` that works for `for_rank`. On its own node a rank works for itself.
  int worker(int on_node, int for_rank) const {
    const std::vector<int>& ranks = ranks_of[static_cast<std::size_t>(on_node)];
    return ranks[static_cast<std::size_t>(index(for_rank)) % ranks.size()];
  }
  /// Ranks of other nodes for which `worker_rank` works, ascending.
  std::vector<int> clients(int worker_rank) const {
    std::vector<int> found;
    const int home = map.node_of[static_cast<std::size_t>(worker_rank)];
    for (int r = 0; r < static_cast<int>(index_of.size()); ++r)
      if (map.node_of[static_cast<std::size_t>(r)] != home && worker(home, r) == worker_rank)
        found.push_back(r);
    return found;
  }
  /// The most clients that any rank has.
  int most_clients() const {
    std::size_t most = 0;
    for (int r = 0; r < static_cast<int>(index_of.size()); ++r)
      most = std::max(most, clients(r).size());
    return static_cast<int>(most);
  }
};

}  // namespace tessera::comm
