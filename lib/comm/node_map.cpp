// SPDX-License-Identifier: Apache-2.0
// Which ranks of a group share a node.
#include "tessera/comm/node_map.hpp"

#include <algorithm>
#include <map>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "tessera/base/error.hpp"

namespace tessera {
namespace {

/// Renumbers so that nodes count up by their first rank.
NodeMap by_first_rank(const std::vector<int>& labels) {
  NodeMap map;
  std::map<int, int> number;
  for (const int label : labels) {
    const auto next = static_cast<int>(number.size());
    map.node_of.push_back(number.try_emplace(label, next).first->second);
  }
  return map;
}

}  // namespace

int NodeMap::nodes() const {
  int highest = -1;
  for (const int node : node_of) highest = std::max(highest, node);
  return highest + 1;
}

std::vector<int> NodeMap::ranks_of(int node) const {
  std::vector<int> ranks;
  for (std::size_t r = 0; r < node_of.size(); ++r)
    if (node_of[r] == node) ranks.push_back(static_cast<int>(r));
  return ranks;
}

NodeMap NodeMap::from_lists(const std::vector<std::vector<int>>& lists, int size) {
  std::vector<int> labels(static_cast<std::size_t>(size), -1);
  for (std::size_t node = 0; node < lists.size(); ++node) {
    for (const int rank : lists[node]) {
      TESSERA_CHECK(rank >= 0 && rank < size, Code::invalid_config,
                    fmt::format("comm.nodes names rank {}, but there are {} ranks (0 to {})", rank,
                                size, size - 1));
      int& label = labels[static_cast<std::size_t>(rank)];
      TESSERA_CHECK(label < 0, Code::invalid_config,
                    fmt::format("comm.nodes names rank {} twice", rank));
      label = static_cast<int>(node);
    }
  }
  for (std::size_t r = 0; r < labels.size(); ++r)
    TESSERA_CHECK(
        labels[r] >= 0, Code::invalid_config,
        fmt::format("comm.nodes leaves out rank {} of {}: name every rank once", r, size));
  return by_first_rank(labels);
}

NodeMap NodeMap::single(int size) {
  return NodeMap{std::vector<int>(static_cast<std::size_t>(size), 0)};
}

NodeMap NodeMap::restrict_to(const std::vector<int>& members) const {
  std::vector<int> labels;
  labels.reserve(members.size());
  for (const int member : members) labels.push_back(node_of.at(static_cast<std::size_t>(member)));
  return by_first_rank(labels);
}

std::string NodeMap::to_string() const {
  std::vector<std::string> lists;
  for (int node = 0; node < nodes(); ++node)
    lists.push_back(fmt::format("[{}]", fmt::join(ranks_of(node), ",")));
  return fmt::format("[{}]", fmt::join(lists, ","));
}

}  // namespace tessera
