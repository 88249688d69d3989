// SPDX-License-Identifier: Apache-2.0
// Two levels: shared memory inside a node, messages between nodes.
#include "comm/hybrid/hybrid_communicator.hpp"

#include "comm/hybrid/two_level.hpp"
#include "comm/limits.hpp"
#include "comm/shm/shm_communicator.hpp"

namespace tessera::comm {

HybridCommunicator::HybridCommunicator(std::shared_ptr<Group> group, std::shared_ptr<Group> local,
                                       std::unique_ptr<SharedNode> node)
    : MpiCommunicator(std::move(group)),
      local_(std::move(local)),
      node_(std::move(node)),
      plan_(nodes(), rank()),
      most_clients_(plan_.most_clients()) {}

BaseCommunicator::Started HybridCommunicator::start_reduce_scatter(std::vector<Part> parts,
                                                                   DType dtype,
                                                                   Reduction reduction) {
  std::int64_t elements = 0;
  for (const Part& part : parts) elements += part.pieces.total(size());
  const bool small = elements * static_cast<std::int64_t>(size_of(dtype)) <= limits().small_bytes;
  if (small || parts.size() > kMaxParts)
    return MpiCommunicator::start_reduce_scatter(std::move(parts), dtype, reduction);
  auto operation = std::make_shared<TwoLevelReduceScatter>(group(), *node_, plan_, std::move(parts),
                                                           dtype, reduction);
  operation->announce();
  return operation;
}

BaseCommunicator::Started HybridCommunicator::start_all_gather(std::vector<Part> parts,
                                                               DType dtype) {
  std::int64_t elements = 0;
  for (const Part& part : parts) elements += part.pieces.total(size());
  if (elements * static_cast<std::int64_t>(size_of(dtype)) <= limits().small_bytes)
    return MpiCommunicator::start_all_gather(std::move(parts), dtype);
  return std::make_shared<TwoLevelAllGather>(group(), *node_, plan_, most_clients_,
                                             std::move(parts), dtype);
}

Buffer HybridCommunicator::allocate_memory(std::size_t bytes, Purpose purpose) {
  return allocate_in(*node_, bytes, purpose);
}

std::function<void()> HybridCommunicator::transport_closer() {
  return [node = node_, local = local_] {
    node->close();
    local->close();
  };
}

}  // namespace tessera::comm
