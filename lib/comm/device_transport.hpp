// SPDX-License-Identifier: Apache-2.0
// How buffers of a device move between the ranks of a group. No CUDA header.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "comm/base_communicator.hpp"

namespace tessera::comm {

/// What was called, and the stream that it was called for: the work starts after what is on that
/// stream, and Work::wait lets that stream wait.
struct DeviceCall {
  Signature signature;
  Stream stream;

  DType dtype() const { return signature.dtype; }
  Reduction reduction() const { return static_cast<Reduction>(signature.reduction); }
};

/// Arguments are checked and counted by BaseCommunicator. Collective, as the calls of Communicator.
class DeviceTransport {
 public:
  virtual ~DeviceTransport() = default;

  /// "nccl", "mpi", "self".
  virtual const char* name() const = 0;
  virtual Device device() const = 0;
  virtual Work all_reduce(const DeviceCall& call, std::byte* data, std::int64_t count) = 0;
  virtual Work reduce_scatter(const DeviceCall& call, const std::vector<Part>& parts) = 0;
  virtual Work all_gather(const DeviceCall& call, const std::vector<Part>& parts) = 0;
  virtual Work broadcast(const DeviceCall& call, std::byte* data, std::int64_t bytes, int root) = 0;
  virtual Work all_to_all(const DeviceCall& call, const std::byte* send, const Pieces& send_bytes,
                          std::byte* receive, const Pieces& receive_bytes) = 0;
  virtual Work send(const DeviceCall& call, const std::byte* data, std::int64_t bytes, int to,
                    int tag) = 0;
  virtual Work receive(const DeviceCall& call, std::byte* data, std::int64_t bytes, int from,
                       int tag) = 0;
  virtual void group_begin() {}
  virtual void group_end() {}
  /// Looks for failures and lets pending work come on; never blocks.
  virtual void poll() {}
  /// Uninitialised; registered with the transport where it has that.
  virtual Buffer allocate(std::size_t bytes, Purpose purpose) {
    return tessera::allocate(bytes, device(), purpose);
  }
  /// For a subgroup: `child` is null on ranks without one. Collective over the parent; null leaves
  /// the choice to the subgroup's first use.
  virtual std::unique_ptr<DeviceTransport> split(int, int, BaseCommunicator*) { return nullptr; }
  /// Ends pending work and the connections. Collective.
  virtual void close() {}
};

/// By CommOptions::device_transport: auto takes NCCL where the build has it and every rank has a
/// GPU of its own. Collective over the group of `host`. Errors: invalid_config when what was asked
/// for cannot serve the group.
std::unique_ptr<DeviceTransport> make_device_transport(BaseCommunicator& host, Device device);

/// For a group of one rank: copies.
std::unique_ptr<DeviceTransport> make_lone_transport(Device device);

/// Through page-locked host memory and `host`. Blocks the calling thread while it moves data.
std::unique_ptr<DeviceTransport> make_staged_transport(BaseCommunicator& host, Device device);

// comm/nccl: in builds without NCCL the reason says so.
std::string nccl_unavailable_reason();
std::unique_ptr<DeviceTransport> make_nccl_transport(std::shared_ptr<Group> group, Device device);

}  // namespace tessera::comm
