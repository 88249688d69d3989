// SPDX-License-Identifier: Apache-2.0
// Collectives over any MPI communicator.
#include "comm/mpi/mpi_communicator.hpp"

#include "comm/limits.hpp"
#include "comm/mpi/exchange.hpp"
#include "comm/sequence.hpp"

namespace tessera::comm {

BaseCommunicator::Started MpiCommunicator::start_all_reduce(std::byte* data, std::int64_t count,
                                                            DType dtype, Reduction reduction) {
  const auto width = static_cast<std::int64_t>(size_of(dtype));
  if (count * width <= limits().small_bytes)
    return std::make_shared<SmallAllReduce>(group(), fold_order(), data, count, dtype, reduction);
  const Pieces slices = slices_of(count, size());
  std::byte* own = data + slices.offset(rank()) * width;
  std::vector<Started> steps;
  steps.push_back(start_reduce_scatter({{data, own, slices}}, dtype, reduction));
  steps.push_back(start_all_gather({{own, data, slices}}, dtype));
  return std::make_shared<Sequence>(std::move(steps));
}

BaseCommunicator::Started MpiCommunicator::start_reduce_scatter(std::vector<Part> parts,
                                                                DType dtype, Reduction reduction) {
  return std::make_shared<ReduceScatterExchange>(group(), fold_order(), std::move(parts), dtype,
                                                 reduction);
}

BaseCommunicator::Started MpiCommunicator::start_all_gather(std::vector<Part> parts, DType dtype) {
  return std::make_shared<AllGatherExchange>(group(), std::move(parts),
                                             static_cast<std::int64_t>(size_of(dtype)));
}

BaseCommunicator::Started MpiCommunicator::start_broadcast(std::byte* data, std::int64_t bytes,
                                                           int root) {
  return std::make_shared<BroadcastTree>(group(), data, bytes, root);
}

BaseCommunicator::Started MpiCommunicator::start_all_to_all(const std::byte* send,
                                                            Pieces send_bytes, std::byte* receive,
                                                            Pieces receive_bytes) {
  return std::make_shared<AllToAllExchange>(group(), send, std::move(send_bytes), receive,
                                            std::move(receive_bytes));
}

}  // namespace tessera::comm
