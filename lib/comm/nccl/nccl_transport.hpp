// SPDX-License-Identifier: Apache-2.0
// Device buffers through NCCL.
#pragma once

#include <chrono>
#include <cuda_runtime_api.h>
#include <deque>
#include <functional>
#include <memory>
#include <nccl.h>
#include <string>
#include <vector>

#include "comm/device_transport.hpp"

namespace tessera::comm {

/// One non-blocking NCCL communicator and one stream of high priority for its operations, so that
/// they overlap with the stream of the call. Errors that NCCL reports later, peers that fail and
/// operations that outlive comm.timeout_seconds are looked for at each call and while the host
/// waits for the GPU; they abort the communicator, which ends its kernels, and throw.
class NcclTransport final : public DeviceTransport {
 public:
  /// The unique id travels over MPI. Collective.
  NcclTransport(std::shared_ptr<Group> group, Device device);
  ~NcclTransport() override;

  const char* name() const override { return "nccl"; }
  Device device() const override { return device_; }
  Work all_reduce(const DeviceCall& call, std::byte* data, std::int64_t count) override;
  Work reduce_scatter(const DeviceCall& call, const std::vector<Part>& parts) override;
  Work all_gather(const DeviceCall& call, const std::vector<Part>& parts) override;
  Work broadcast(const DeviceCall& call, std::byte* data, std::int64_t bytes, int root) override;
  Work all_to_all(const DeviceCall& call, const std::byte* send, const Pieces& send_bytes,
                  std::byte* receive, const Pieces& receive_bytes) override;
  Work send(const DeviceCall& call, const std::byte* data, std::int64_t bytes, int to,
            int tag) override;
  Work receive(const DeviceCall& call, std::byte* data, std::int64_t bytes, int from,
               int tag) override;
  void group_begin() override;
  void group_end() override;
  void poll() override;
  /// As poll(), and hears of failures of peers.
  void watch();
  Buffer allocate(std::size_t bytes, Purpose purpose) override;
  std::unique_ptr<DeviceTransport> split(int color, int key, BaseCommunicator* child) override;
  void close() override;

 private:
  using Clock = std::chrono::steady_clock;
  /// One operation on its way.
  struct Flight {
    Signature signature;
    Event done;
    Clock::time_point start = Clock::now();
    bool launched = false;
  };
  class FlightState;
  /// The handle, apart: registered buffers may look whether it still lives.
  struct Handle {
    ncclComm_t communicator = nullptr;
  };
  using Body = std::function<void(ncclComm_t, cudaStream_t)>;

  NcclTransport(std::shared_ptr<Group> group, Device device, ncclComm_t communicator);
  Work launch(const DeviceCall& call, const Body& body);
  void lift_off();
  /// Checks a call, and waits until a non-blocking one has ended.
  void settle(ncclResult_t result, const char* what);
  void settle(ncclComm_t communicator, ncclResult_t result, const char* what);
  void call(ncclResult_t result);
  void land();
  [[noreturn]] void break_down(Code code, const std::string& what, const std::string& why);
  void abort() noexcept;
  ncclComm_t communicator() const;

  std::shared_ptr<Group> group_;
  Device device_;
  Stream stream_;
  std::shared_ptr<Handle> handle_ = std::make_shared<Handle>();
  std::deque<std::shared_ptr<Flight>> flights_;   ///< launched, in order
  std::vector<std::shared_ptr<Flight>> waiting_;  ///< for the end of the group
  int depth_ = 0;
};

}  // namespace tessera::comm
