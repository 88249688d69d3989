// SPDX-License-Identifier: Apache-2.0
// What all transports share: argument checks, counting, comparing calls over ranks, the queue.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tessera/base/timeline.hpp"
#include "tessera/comm/communicator.hpp"

#include "comm/fold.hpp"
#include "comm/group.hpp"
#include "comm/queue.hpp"

namespace tessera::comm {

/// Where rank q's piece of a part lies: equal pieces at a stride, or pieces one after the other.
struct Pieces {
  std::int64_t stride = 0;
  std::int64_t count = 0;
  std::vector<std::int64_t> bounds;  ///< size + 1 starts when the pieces differ

  std::int64_t offset(int rank) const {
    return bounds.empty() ? rank * stride : bounds[static_cast<std::size_t>(rank)];
  }
  std::int64_t length(int rank) const {
    return bounds.empty() ? count
                          : bounds[static_cast<std::size_t>(rank) + 1] -
                                bounds[static_cast<std::size_t>(rank)];
  }
  std::int64_t longest() const;
  /// Sum over all ranks.
  std::int64_t total(int ranks) const { return bounds.empty() ? count * ranks : bounds.back(); }
};

/// A part of a reduce-scatter (pieces are of `send`) or an all-gather (pieces are of `receive`).
struct Part {
  const std::byte* send;
  std::byte* receive;
  Pieces pieces;
};

class DeviceTransport;

/// How an all-reduce of `count` elements is divided among the ranks.
Pieces slices_of(std::int64_t count, int ranks);

class BaseCommunicator : public Communicator {
 public:
  explicit BaseCommunicator(std::shared_ptr<Group> group);
  ~BaseCommunicator() override;

  int rank() const final { return group_->rank(); }
  int size() const final { return group_->size(); }
  const std::string& name() const final { return group_->name(); }
  const NodeMap& nodes() const final { return group_->nodes(); }

  Work all_reduce(void* data, std::int64_t count, DType dtype, Reduction reduction,
                  const Stream& stream) final;
  Work reduce_scatter(std::span<const ScatterPart> parts, DType dtype, Reduction reduction,
                      const Stream& stream) final;
  Work all_gather(std::span<const GatherPart> parts, DType dtype, const Stream& stream) final;
  Work reduce_scatter_v(const void* send, void* receive, std::span<const std::int64_t> counts,
                        DType dtype, Reduction reduction, const Stream& stream) final;
  Work all_gather_v(const void* send, void* receive, std::span<const std::int64_t> counts,
                    DType dtype, const Stream& stream) final;
  Work broadcast(void* data, std::int64_t count, DType dtype, int root, const Stream& stream) final;
  Work all_to_all_v(const void* send, std::span<const std::int64_t> send_counts, void* receive,
                    std::span<const std::int64_t> receive_counts, DType dtype,
                    const Stream& stream) final;
  Work send(const void* data, std::int64_t count, DType dtype, int to, int tag,
            const Stream& stream) final;
  Work receive(void* data, std::int64_t count, DType dtype, int from, int tag,
               const Stream& stream) final;
  void barrier() final;
  void group_begin() final;
  void group_end() final;
  void progress() final;
  std::vector<std::string> all_gather_text(const std::string& text) final;
  std::string broadcast_text(const std::string& text, int root) final;
  Buffer allocate(std::size_t bytes, Purpose purpose) final;
  Buffer allocate_on(Device device, std::size_t bytes, Purpose purpose) final;
  void open_device(Device device) final;
  const char* device_transport() const final;
  std::unique_ptr<Communicator> split(int color, int key, const std::string& name) final;
  Traffic& traffic() final { return traffic_; }

  /// Finishes pending work and frees what MPI holds. Collective; later calls throw.
  void close();
  /// Tells the peers that this rank does not come any more.
  void abandon(const std::string& reason) {
    if (!group_->closed()) group_->mark_failed(Code::peer_failed, reason);
  }
  void progress_quietly() noexcept;
  Group& group() { return *group_; }
  const std::shared_ptr<Group>& shared_group() const { return group_; }

 protected:
  using Started = std::shared_ptr<Operation>;

  void all_reduce_scalars_raw(void* values, std::int64_t count, DType dtype,
                              Reduction reduction) final;

  // A transport's part. Arguments are checked, sizes above one and counts above zero; null means
  // done already.
  virtual Started start_all_reduce(std::byte* data, std::int64_t count, DType dtype,
                                   Reduction reduction) = 0;
  virtual Started start_reduce_scatter(std::vector<Part> parts, DType dtype,
                                       Reduction reduction) = 0;
  virtual Started start_all_gather(std::vector<Part> parts, DType dtype) = 0;
  virtual Started start_broadcast(std::byte* data, std::int64_t bytes, int root) = 0;
  virtual Started start_all_to_all(const std::byte* send, Pieces send_bytes, std::byte* receive,
                                   Pieces receive_bytes) = 0;
  virtual Started start_barrier() {
    group_->barrier();
    return nullptr;
  }
  virtual Buffer allocate_memory(std::size_t bytes, Purpose purpose);
  /// Frees the transport's own resources, also when the communicator has gone; pending work is
  /// done. Collective.
  virtual std::function<void()> transport_closer() {
    return [] {};
  }
  /// Closes, or where that could wait for peers that do not come leaves it to the Runtime's end. A
  /// transport with resources of its own calls it in its destructor.
  void retire() noexcept;

  OperationQueue& queue() { return *queue_; }
  const FoldOrder& fold_order() const { return order_; }

 private:
  void begin(const Signature& signature);
  /// The time that this rank spends in a call, up to the end of the scope.
  ScopedSpan record(const Signature& signature, std::int64_t bytes = -1) const;
  void begin(const Signature& signature, const Stream& stream);
  DeviceTransport& on_device(Device device);
  DeviceTransport& opened(const Signature& signature, Device device);
  void compare_over_ranks(const Signature& signature);
  void count_all_reduce(const char* name, std::int64_t count, std::int64_t width);
  Work finish(const Signature& signature, Started operation);
  Work run_reduce_scatter(std::vector<Part> parts, const Signature& signature,
                          const Stream& stream);
  Work run_all_gather(std::vector<Part> parts, const Signature& signature, const Stream& stream);

  std::shared_ptr<Group> group_;
  std::shared_ptr<OperationQueue> queue_;
  FoldOrder order_;
  Traffic traffic_;
  bool retired_ = false;
  std::unique_ptr<DeviceTransport> device_;  ///< made when a device is first used
  int open_groups_ = 0;
};

}  // namespace tessera::comm
