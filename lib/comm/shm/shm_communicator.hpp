// SPDX-License-Identifier: Apache-2.0
// Collectives through memory that all ranks of the group share.
#pragma once

#include <memory>
#include <vector>

#include "comm/base_communicator.hpp"
#include "comm/shm/shared_node.hpp"

namespace tessera::comm {

/// A buffer in `node`'s windows, or private memory (said once) when they have no room. Collective.
Buffer allocate_in(SharedNode& node, std::size_t bytes, Purpose purpose);

class ShmCommunicator final : public BaseCommunicator {
 public:
  ShmCommunicator(std::shared_ptr<Group> group, std::unique_ptr<SharedNode> node)
      : BaseCommunicator(std::move(group)), node_(std::move(node)) {}
  ~ShmCommunicator() override { retire(); }
  const char* transport() const override { return "shm"; }

 protected:
  Started start_all_reduce(std::byte* data, std::int64_t count, DType dtype,
                           Reduction reduction) override;
  Started start_reduce_scatter(std::vector<Part> parts, DType dtype, Reduction reduction) override;
  Started start_all_gather(std::vector<Part> parts, DType dtype) override;
  Started start_broadcast(std::byte* data, std::int64_t bytes, int root) override;
  Started start_all_to_all(const std::byte* send, Pieces send_bytes, std::byte* receive,
                           Pieces receive_bytes) override;
  Started start_barrier() override;
  Buffer allocate_memory(std::size_t bytes, Purpose purpose) override {
    return allocate_in(*node_, bytes, purpose);
  }
  std::function<void()> transport_closer() override {
    return [node = node_] { node->close(); };
  }

 private:
  /// Tries a little before it puts the operation on the heap and in the queue.
  template <typename Small>
  Started soon(Small operation);
  /// Lists longer than a slot become several operations.
  template <typename Make>
  Started in_slots(std::vector<Part> parts, const Make& make);

  std::shared_ptr<SharedNode> node_;
};

}  // namespace tessera::comm
