// SPDX-License-Identifier: Apache-2.0
// A communicator that misbehaves on purpose, for tests of what stands above it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tessera/comm/communicator.hpp"

namespace tessera::comm {

/// What goes wrong on this rank. Calls are counted from 0; each collective or message is one.
struct Faults {
  double delay_seconds = 0;    ///< before every call
  double jitter_seconds = 0;   ///< at most this much more, drawn from (seed, rank, call)
  std::uint64_t seed = 0;      ///< of the jitter
  std::int64_t fail_at = -1;   ///< this call throws Error(mpi) instead
  std::int64_t stall_at = -1;  ///< this call waits first
  double stall_seconds = 0;    ///< for so long
};

/// Forwards everything to another communicator, late or not at all.
class FaultyCommunicator final : public Communicator {
 public:
  FaultyCommunicator(Communicator& inner, const Faults& faults) : inner_(inner), faults_(faults) {}

  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  const std::string& name() const override { return inner_.name(); }
  const char* transport() const override { return inner_.transport(); }
  const NodeMap& nodes() const override { return inner_.nodes(); }
  Work all_reduce(void* data, std::int64_t count, DType dtype, Reduction reduction,
                  const Stream& stream) override;
  Work reduce_scatter(std::span<const ScatterPart> parts, DType dtype, Reduction reduction,
                      const Stream& stream) override;
  Work all_gather(std::span<const GatherPart> parts, DType dtype, const Stream& stream) override;
  Work reduce_scatter_v(const void* send, void* receive, std::span<const std::int64_t> counts,
                        DType dtype, Reduction reduction, const Stream& stream) override;
  Work all_gather_v(const void* send, void* receive, std::span<const std::int64_t> counts,
                    DType dtype, const Stream& stream) override;
  Work broadcast(void* data, std::int64_t count, DType dtype, int root,
                 const Stream& stream) override;
  Work all_to_all_v(const void* send, std::span<const std::int64_t> send_counts, void* receive,
                    std::span<const std::int64_t> receive_counts, DType dtype,
                    const Stream& stream) override;
  Work send(const void* data, std::int64_t count, DType dtype, int to, int tag,
            const Stream& stream) override;
  Work receive(void* data, std::int64_t count, DType dtype, int from, int tag,
               const Stream& stream) override;
  void barrier() override;
  void group_begin() override { inner_.group_begin(); }
  void group_end() override { inner_.group_end(); }
  void progress() override { inner_.progress(); }
  std::vector<std::string> all_gather_text(const std::string& text) override;
  std::string broadcast_text(const std::string& text, int root) override;
  Buffer allocate(std::size_t bytes, Purpose purpose) override;
  Buffer allocate_on(Device device, std::size_t bytes, Purpose purpose) override;
  void open_device(Device device) override { inner_.open_device(device); }
  const char* device_transport() const override { return inner_.device_transport(); }
  std::unique_ptr<Communicator> split(int color, int key, const std::string& name) override;
  Traffic& traffic() override { return inner_.traffic(); }

  std::int64_t calls() const { return calls_; }

 protected:
  void all_reduce_scalars_raw(void* values, std::int64_t count, DType dtype,
                              Reduction reduction) override;

 private:
  void misbehave(const char* operation);

  Communicator& inner_;
  Faults faults_;
  std::int64_t calls_ = 0;
};

}  // namespace tessera::comm
