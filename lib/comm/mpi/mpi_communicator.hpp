// SPDX-License-Identifier: Apache-2.0
// Collectives over any MPI communicator: slices travel as messages, and we fold them ourselves.
#pragma once

#include <memory>
#include <vector>

#include "comm/base_communicator.hpp"

namespace tessera::comm {

class MpiCommunicator : public BaseCommunicator {
 public:
  using BaseCommunicator::BaseCommunicator;
  const char* transport() const override { return "mpi"; }

 protected:
  Started start_all_reduce(std::byte* data, std::int64_t count, DType dtype,
                           Reduction reduction) override;
  Started start_reduce_scatter(std::vector<Part> parts, DType dtype, Reduction reduction) override;
  Started start_all_gather(std::vector<Part> parts, DType dtype) override;
  Started start_broadcast(std::byte* data, std::int64_t bytes, int root) override;
  Started start_all_to_all(const std::byte* send, Pieces send_bytes, std::byte* receive,
                           Pieces receive_bytes) override;
};

}  // namespace tessera::comm
