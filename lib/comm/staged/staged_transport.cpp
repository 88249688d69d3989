// SPDX-License-Identifier: Apache-2.0
// Device buffers through page-locked host memory: while one slot travels between ranks, the other
// is filled from the device.
#include <algorithm>
#include <array>
#include <functional>

#include "tessera/base/log.hpp"
#include "tessera/device/cuda.hpp"

#include "comm/device_transport.hpp"

namespace tessera::comm {

namespace {

/// Bytes of a slot that hold pieces of all ranks: large enough that a copy reaches the bus's speed.
constexpr std::int64_t kSlot = std::int64_t{8} << 20;

std::size_t unsigned_of(std::int64_t bytes) {
  return static_cast<std::size_t>(bytes);
}

/// Lets the stream of the call wait for what the copy stream has done.
class CopiedState final : public Work::State {
 public:
  CopiedState(Stream stream, Event done) : stream_(std::move(stream)), done_(std::move(done)) {}
  bool test() override { return done_.reached(); }
  void wait() override { stream_.wait(done_); }

 private:
  Stream stream_;
  Event done_;
};

/// A message on the host, and what happens when it is done.
class MessageState final : public Work::State {
 public:
  MessageState(Work message, Buffer memory, std::function<void(const Buffer&)> arrived)
      : message_(std::move(message)), memory_(std::move(memory)), arrived_(std::move(arrived)) {}
  bool test() override {
    if (!message_.test()) return false;
    finish();
    return true;
  }
  void wait() override {
    message_.wait();
    finish();
  }

 private:
  void finish() {
    if (arrived_) arrived_(memory_);
    arrived_ = nullptr;
  }

  Work message_;
  Buffer memory_;
  std::function<void(const Buffer&)> arrived_;
};

/// Elements [begin, end) of every rank's piece of one part.
struct Chunk {
  const Part* part;
  std::int64_t begin;
  std::vector<std::int64_t> counts;  ///< by rank
  std::vector<std::int64_t> starts;  ///< in the slot
  std::int64_t total;

  Chunk(const Part& whole, std::int64_t first, std::int64_t most, int ranks)
      : part(&whole), begin(first), total(0) {
    for (int q = 0; q < ranks; ++q) {
      counts.push_back(std::clamp<std::int64_t>(whole.pieces.length(q) - first, 0, most));
      starts.push_back(total);
      total += counts.back();
    }
  }
};

std::vector<Chunk> cut(const std::vector<Part>& parts, std::int64_t width, int ranks) {
  const std::int64_t most = std::max<std::int64_t>(kSlot / width / ranks, 1);
  std::vector<Chunk> chunks;
  for (const Part& part : parts)
    for (std::int64_t begin = 0; begin < part.pieces.longest(); begin += most)
      chunks.emplace_back(part, begin, most, ranks);
  return chunks;
}

class StagedTransport final : public DeviceTransport {
 public:
  StagedTransport(BaseCommunicator& host, Device device)
      : host_(host), device_(device), copies_(make_stream(device, StreamPriority::high)) {}
  ~StagedTransport() override {
    try {
      copies_.synchronize();  // copies may still read the slots
    } catch (const std::exception& error) {
      log_error(error.what());
    }
  }

  const char* name() const override { return "mpi"; }
  Device device() const override { return device_; }

  Work all_reduce(const DeviceCall& call, std::byte* data, std::int64_t count) override {
    const auto width = static_cast<std::int64_t>(size_of(call.dtype()));
    const std::int64_t most = kSlot / width;
    const auto length = [=](std::int64_t k) { return std::min(most, count - k * most); };
    const auto place = [=](std::int64_t k) { return data + k * most * width; };
    return pipeline(
        call, (count + most - 1) / most, kSlot,
        [=, this](std::int64_t k, std::byte* slot) {
          copies_.copy(slot, place(k), unsigned_of(length(k) * width));
        },
        [=, this, &call](std::int64_t k, std::byte* slot) {
          host_.all_reduce(slot, length(k), call.dtype(), call.reduction(), {}).wait();
        },
        [=, this](std::int64_t k, const std::byte* slot) {
          copies_.copy(place(k), slot, unsigned_of(length(k) * width));
        });
  }

  Work reduce_scatter(const DeviceCall& call, const std::vector<Part>& parts) override {
    const auto width = static_cast<std::int64_t>(size_of(call.dtype()));
    const std::vector<Chunk> chunks = cut(parts, width, host_.size());
    const int me = host_.rank();
    return pipeline(
        call, static_cast<std::int64_t>(chunks.size()), 2 * kSlot + 4096,
        [&](std::int64_t k, std::byte* slot) {
          for (int q = 0; q < host_.size(); ++q) load(chunks[unsigned_of(k)], q, width, slot);
        },
        [&](std::int64_t k, std::byte* slot) {
          const Chunk& chunk = chunks[unsigned_of(k)];
          host_
              .reduce_scatter_v(slot, slot + chunk.total * width, chunk.counts, call.dtype(),
                                call.reduction(), {})
              .wait();
        },
        [&](std::int64_t k, const std::byte* slot) {
          const Chunk& chunk = chunks[unsigned_of(k)];
          copies_.copy(chunk.part->receive + chunk.begin * width, slot + chunk.total * width,
                       unsigned_of(chunk.counts[unsigned_of(me)] * width));
        });
  }

  Work all_gather(const DeviceCall& call, const std::vector<Part>& parts) override {
    const auto width = static_cast<std::int64_t>(size_of(call.dtype()));
    const std::vector<Chunk> chunks = cut(parts, width, host_.size());
    const auto me = unsigned_of(host_.rank());
    return pipeline(
        call, static_cast<std::int64_t>(chunks.size()), kSlot + 4096,
        [&](std::int64_t k, std::byte* slot) {
          const Chunk& chunk = chunks[unsigned_of(k)];
          copies_.copy(slot + chunk.starts[me] * width, chunk.part->send + chunk.begin * width,
                       unsigned_of(chunk.counts[me] * width));
        },
        [&](std::int64_t k, std::byte* slot) {
          const Chunk& chunk = chunks[unsigned_of(k)];
          host_.all_gather_v(slot + chunk.starts[me] * width, slot, chunk.counts, call.dtype(), {})
              .wait();
        },
        [&](std::int64_t k, const std::byte* slot) {
          for (int q = 0; q < host_.size(); ++q) store(chunks[unsigned_of(k)], q, width, slot);
        });
  }

  Work broadcast(const DeviceCall& call, std::byte* data, std::int64_t bytes, int root) override {
    const auto length = [=](std::int64_t k) { return std::min(kSlot, bytes - k * kSlot); };
    return pipeline(
        call, (bytes + kSlot - 1) / kSlot, kSlot,
        [&, root](std::int64_t k, std::byte* slot) {
          if (host_.rank() == root) copies_.copy(slot, data + k * kSlot, unsigned_of(length(k)));
        },
        [&, root](std::int64_t k, std::byte* slot) {
          host_.broadcast(slot, length(k), DType::uint8, root, {}).wait();
        },
        [&, root](std::int64_t k, const std::byte* slot) {
          if (host_.rank() != root) copies_.copy(data + k * kSlot, slot, unsigned_of(length(k)));
        });
  }

  Work all_to_all(const DeviceCall& call, const std::byte* send, const Pieces& send_bytes,
                  std::byte* receive, const Pieces& receive_bytes) override {
    const std::int64_t out = send_bytes.total(host_.size()), in = receive_bytes.total(host_.size());
    const auto counts = [this](const Pieces& pieces) {
      std::vector<std::int64_t> list;
      for (int q = 0; q < host_.size(); ++q) list.push_back(pieces.length(q));
      return list;
    };
    return pipeline(
        call, 1, out + in,
        [&](std::int64_t, std::byte* slot) { copies_.copy(slot, send, unsigned_of(out)); },
        [&](std::int64_t, std::byte* slot) {
          host_
              .all_to_all_v(slot, counts(send_bytes), slot + out, counts(receive_bytes),
                            DType::uint8, {})
              .wait();
        },
        [&](std::int64_t, const std::byte* slot) {
          copies_.copy(receive, slot + out, unsigned_of(in));
        });
  }

  Work send(const DeviceCall& call, const std::byte* data, std::int64_t bytes, int to,
            int tag) override {
    Buffer memory = allocate_pinned(unsigned_of(bytes), Purpose::workspace);
    copies_.wait(call.stream.record());
    copies_.copy(memory.data(), data, unsigned_of(bytes));
    copies_.synchronize();
    const Traffic::Pause pause(host_.traffic());
    Work message = host_.send(memory.data(), bytes, DType::uint8, to, tag, {});
    return Work(std::make_shared<MessageState>(std::move(message), std::move(memory), nullptr));
  }

  Work receive(const DeviceCall& call, std::byte* data, std::int64_t bytes, int from,
               int tag) override {
    Buffer memory = allocate_pinned(unsigned_of(bytes), Purpose::workspace);
    const Traffic::Pause pause(host_.traffic());
    Work message = host_.receive(memory.data(), bytes, DType::uint8, from, tag, {});
    return Work(std::make_shared<MessageState>(
        std::move(message), std::move(memory), [stream = call.stream, data](const Buffer& arrived) {
          stream.copy(data, arrived.data(), arrived.bytes());
          stream.synchronize();  // the page-locked memory is given back next
        }));
  }

 private:
  using Copy = std::function<void(std::int64_t, std::byte*)>;

  /// pack, exchange and unpack for each of `chunks` slots, in order; packing of the next slot runs
  /// beside the exchange of this one. All copies are on one stream, so a slot is never refilled
  /// before it was read.
  Work pipeline(const DeviceCall& call, std::int64_t chunks, std::int64_t slot_bytes,
                const Copy& pack, const Copy& exchange, const Copy& unpack) {
    if (chunks == 0) return {};
    const Traffic::Pause pause(host_.traffic());
    copies_.wait(call.stream.record());
    for (Buffer& slot : slots_)
      if (slot.bytes() < unsigned_of(slot_bytes)) grow(slot, slot_bytes);
    std::array<Event, 2> packed;
    const auto fill = [&](std::int64_t k) {
      pack(k, slot(k));
      packed[unsigned_of(k % 2)] = copies_.record();
    };
    fill(0);
    for (std::int64_t k = 0; k < chunks; ++k) {
      if (k + 1 < chunks) fill(k + 1);
      packed[unsigned_of(k % 2)].synchronize();
      exchange(k, slot(k));
      unpack(k, slot(k));
    }
    return Work(std::make_shared<CopiedState>(call.stream, copies_.record()));
  }

  void grow(Buffer& slot, std::int64_t bytes) {
    copies_.synchronize();  // copies may still read the old one
    slot = Buffer();
    slot = allocate_pinned(unsigned_of(bytes), Purpose::workspace);
  }

  std::byte* slot(std::int64_t k) { return slots_[unsigned_of(k % 2)].as<std::byte>(); }

  void load(const Chunk& chunk, int q, std::int64_t width, std::byte* slot) {
    const auto at = unsigned_of(q);
    copies_.copy(slot + chunk.starts[at] * width,
                 chunk.part->send + (chunk.part->pieces.offset(q) + chunk.begin) * width,
                 unsigned_of(chunk.counts[at] * width));
  }

  void store(const Chunk& chunk, int q, std::int64_t width, const std::byte* slot) {
    const auto at = unsigned_of(q);
    copies_.copy(chunk.part->receive + (chunk.part->pieces.offset(q) + chunk.begin) * width,
                 slot + chunk.starts[at] * width, unsigned_of(chunk.counts[at] * width));
  }

  BaseCommunicator& host_;
  Device device_;
  Stream copies_;
  std::array<Buffer, 2> slots_;
};

}  // namespace

std::unique_ptr<DeviceTransport> make_staged_transport(BaseCommunicator& host, Device device) {
  return std::make_unique<StagedTransport>(host, device);
}

}  // namespace tessera::comm
