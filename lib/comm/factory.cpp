// SPDX-License-Identifier: Apache-2.0
// Chooses the transport of a group and makes its communicator.
#include "comm/factory.hpp"

#include <algorithm>
#include <cstring>
#include <tuple>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/log.hpp"

#include "comm/hybrid/hybrid_communicator.hpp"
#include "comm/mpi/mpi_communicator.hpp"
#include "comm/self/self_communicator.hpp"
#include "comm/shm/shared_operation.hpp"
#include "comm/shm/shm_communicator.hpp"
#include "comm/watchdog.hpp"

namespace tessera::comm {

namespace {

void warn_of_small_memory(const Group& group) {
  if (group.rank() == 0)
    log_warning_once(
        "shared memory is too small (/dev/shm; containers often have 64 MiB, --shm-size sets it): "
        "collectives go through MPI messages, which is slower");
}

std::unique_ptr<BaseCommunicator> make_shm_or_mpi(std::shared_ptr<Group> group) {
  if (group->size() <= SharedAllToAll::kMaxRanks)
    if (auto node = SharedNode::create(group))
      return std::make_unique<ShmCommunicator>(std::move(group), std::move(node));
  warn_of_small_memory(*group);
  return std::make_unique<MpiCommunicator>(std::move(group));
}

/// Nodes of the fold may divide a real node, but not span several.
bool nodes_share_memory(const Group& group) {
  for (int node = 0; node < group.nodes().nodes(); ++node) {
    const std::vector<int> ranks = group.nodes().ranks_of(node);
    for (const int rank : ranks)
      if (group.real_nodes().node_of[static_cast<std::size_t>(rank)] !=
          group.real_nodes().node_of[static_cast<std::size_t>(ranks.front())])
        return false;
  }
  return true;
}

std::unique_ptr<BaseCommunicator> make_hybrid_or_mpi(std::shared_ptr<Group> group) {
  const int color = group->nodes().node_of[static_cast<std::size_t>(group->rank())];
  std::shared_ptr<Group> local;
  {
    const Watchdog::Section guard("MPI_Comm_split of \"" + group->name() + "\"", group->timeout());
    OwnedComm control = split_comm(group->control(), color, group->rank());
    OwnedComm data = split_comm(group->data(), color, group->rank());
    const NodeMap single = NodeMap::single(size_of(control.get()));
    local = std::make_shared<Group>(group->shared_environment(), std::move(control),
                                    std::move(data), group->name() + " in a node", single, single);
  }
  auto node = SharedNode::create(local);
  const char mine = node ? 1 : 0;
  const auto all = group->all_gather_fixed(&mine, 1, "asking for shared memory");
  const bool everywhere =
      std::all_of(all.begin(), all.end(), [](std::byte has) { return has == std::byte{1}; });
  if (everywhere)
    return std::make_unique<HybridCommunicator>(std::move(group), std::move(local),
                                                std::move(node));
  if (node) node->close();
  local->close();
  warn_of_small_memory(*group);
  return std::make_unique<MpiCommunicator>(std::move(group));
}

}  // namespace

std::unique_ptr<BaseCommunicator> make_communicator(std::shared_ptr<Group> group,
                                                    const std::string& transport) {
  if (transport == "auto" && group->size() == 1)
    return std::make_unique<SelfCommunicator>(std::move(group));
  if (transport == "self") {
    TESSERA_CHECK(group->size() == 1, Code::invalid_config,
                  fmt::format("comm.transport self is for one rank, this group has {}: use auto",
                              group->size()));
    return std::make_unique<SelfCommunicator>(std::move(group));
  }
  const bool one_node = group->real_nodes().nodes() == 1;
  TESSERA_CHECK(transport != "shm" || one_node, Code::invalid_config,
                fmt::format("comm.transport shm needs all ranks on one node, these are on {} {}: "
                            "use auto or hybrid",
                            group->real_nodes().nodes(), group->real_nodes().to_string()));
  const bool folds_as_one = group->nodes().nodes() == 1;
  if (transport == "shm" || (transport == "auto" && one_node && folds_as_one))
    return make_shm_or_mpi(std::move(group));
  const bool two_levels = nodes_share_memory(*group);
  TESSERA_CHECK(
      transport != "hybrid" || two_levels, Code::invalid_config,
      fmt::format("comm.transport hybrid needs nodes that share memory, but comm.nodes {} "
                  "joins ranks of different machines {}",
                  group->nodes().to_string(), group->real_nodes().to_string()));
  const bool lonely = group->nodes().nodes() == group->size();
  if (transport == "hybrid" || (transport == "auto" && two_levels && !lonely))
    return make_hybrid_or_mpi(std::move(group));
  return std::make_unique<MpiCommunicator>(std::move(group));
}

std::unique_ptr<BaseCommunicator> split_communicator(Group& parent, int color, int key,
                                                     const std::string& name) {
  const int mine[2] = {color, key};
  const auto raw = parent.all_gather_fixed(mine, sizeof mine, "split");
  std::vector<std::tuple<int, int>> chosen;  // key, parent's rank
  for (int r = 0; r < parent.size(); ++r) {
    int theirs[2];
    std::memcpy(theirs, raw.data() + static_cast<std::size_t>(r) * sizeof mine, sizeof mine);
    if (color >= 0 && theirs[0] == color) chosen.emplace_back(theirs[1], r);
  }
  std::sort(chosen.begin(), chosen.end());
  std::vector<int> members;
  for (const auto& [_, r] : chosen) members.push_back(r);

  const Watchdog::Section guard("MPI_Comm_split of \"" + parent.name() + "\"", parent.timeout());
  OwnedComm control = split_comm(parent.control(), color, key);
  OwnedComm data = split_comm(parent.data(), color, key);
  if (color < 0) return nullptr;
  auto group = std::make_shared<Group>(parent.shared_environment(), std::move(control),
                                       std::move(data), name, parent.nodes().restrict_to(members),
                                       parent.real_nodes().restrict_to(members));
  const std::string& asked = parent.environment().options.transport;
  const bool own_choice = group->size() == 1 || asked == "self";
  return make_communicator(std::move(group), own_choice ? "auto" : asked);
}

}  // namespace tessera::comm
