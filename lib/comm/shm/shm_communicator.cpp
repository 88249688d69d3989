// SPDX-License-Identifier: Apache-2.0
// Collectives through memory that all ranks of the group share.
#include "comm/shm/shm_communicator.hpp"

#include <algorithm>
#include <cstring>
#include <iterator>

#include <fmt/format.h>

#include "tessera/base/log.hpp"
#include "tessera/base/number_format.hpp"

#include "comm/sequence.hpp"
#include "comm/shm/inline_operation.hpp"
#include "comm/shm/shared_operation.hpp"

namespace tessera::comm {

Buffer allocate_in(SharedNode& node, std::size_t bytes, Purpose purpose) {
  const std::optional<int> window = node.windows().acquire(static_cast<std::int64_t>(bytes));
  if (!window) {
    if (node.rank() == 0)
      log_warning_once(fmt::format(
          "shared memory is too small for {} per rank (/dev/shm; containers often have 64 MiB, "
          "--shm-size sets it): such buffers are private and staged, which is slower",
          format_bytes(static_cast<double>(bytes))));
    Buffer buffer = tessera::allocate(bytes, Device{}, purpose);
    if (bytes > 0) std::memset(buffer.data(), 0, bytes);
    return buffer;
  }
  if (bytes == 0) {
    node.windows().release(*window);
    return {};
  }
  const auto release = [table = node.shared_windows(), id = *window](void*, std::size_t) {
    table->release(id);
  };
  return Buffer(node.windows().base(*window, node.rank()), bytes, Device{}, purpose, release);
}

template <typename Small>
BaseCommunicator::Started ShmCommunicator::soon(Small operation) {
  if (queue().empty()) {
    if (operation.execute()) return nullptr;
    // Well below the price of a sleep, and in vain when a peer waits for this very core.
    const bool spin = !group().environment().oversubscribed && !node_->shares_core();
    for (int i = 0; spin && i < 100; ++i) {
      spin_pause();
      if (operation.execute()) return nullptr;
    }
  }
  return std::make_shared<Small>(std::move(operation));
}

template <typename Make>
BaseCommunicator::Started ShmCommunicator::in_slots(std::vector<Part> parts, const Make& make) {
  if (parts.size() <= kMaxParts) return make(std::move(parts));
  std::vector<Started> steps;
  for (auto first = parts.begin(); first != parts.end();) {
    const auto many = std::min<std::ptrdiff_t>(kMaxParts, parts.end() - first);
    steps.push_back(make(std::vector<Part>(first, first + many)));
    first += many;
  }
  return std::make_shared<Sequence>(std::move(steps));
}

BaseCommunicator::Started ShmCommunicator::start_all_reduce(std::byte* data, std::int64_t count,
                                                            DType dtype, Reduction reduction) {
  const auto bytes = count * static_cast<std::int64_t>(size_of(dtype));
  if (bytes <= inline_bytes())
    return soon(InlineAllReduce(*node_, fold_order(), data, count, dtype, reduction));
  auto operation =
      std::make_shared<SharedAllReduce>(*node_, fold_order(), data, count, dtype, reduction);
  operation->announce();
  return operation;
}

BaseCommunicator::Started ShmCommunicator::start_reduce_scatter(std::vector<Part> parts,
                                                                DType dtype, Reduction reduction) {
  if (InlineReduceScatter::fits(parts, size(), dtype))
    return soon(InlineReduceScatter(*node_, fold_order(), std::move(parts), dtype, reduction));
  return in_slots(std::move(parts), [&](std::vector<Part> some) {
    auto operation = std::make_shared<SharedReduceScatter>(*node_, fold_order(), std::move(some),
                                                           dtype, reduction);
    operation->announce();
    return operation;
  });
}

BaseCommunicator::Started ShmCommunicator::start_all_gather(std::vector<Part> parts, DType dtype) {
  if (InlineAllGather::fits(parts, dtype))
    return soon(InlineAllGather(*node_, std::move(parts), dtype));
  return in_slots(std::move(parts), [&](std::vector<Part> some) {
    auto operation = std::make_shared<SharedAllGather>(*node_, std::move(some), dtype);
    operation->announce();
    return operation;
  });
}

BaseCommunicator::Started ShmCommunicator::start_broadcast(std::byte* data, std::int64_t bytes,
                                                           int root) {
  auto operation = std::make_shared<SharedBroadcast>(*node_, data, bytes, root);
  operation->announce();
  return operation;
}

BaseCommunicator::Started ShmCommunicator::start_all_to_all(const std::byte* send,
                                                            Pieces send_bytes, std::byte* receive,
                                                            Pieces receive_bytes) {
  auto operation = std::make_shared<SharedAllToAll>(*node_, send, std::move(send_bytes), receive,
                                                    std::move(receive_bytes));
  operation->announce();
  return operation;
}

BaseCommunicator::Started ShmCommunicator::start_barrier() {
  return soon(InlineBarrier(*node_));
}

}  // namespace tessera::comm
