// SPDX-License-Identifier: Apache-2.0
// What all transports share: argument checks, counting, comparing calls over ranks, the queue.
#include "comm/base_communicator.hpp"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/log.hpp"
#include "tessera/base/shape.hpp"
#include "tessera/device/cuda.hpp"

#include "comm/device_transport.hpp"
#include "comm/factory.hpp"
#include "comm/mpi/messages.hpp"
#include "comm/session.hpp"
#include "comm/watchdog.hpp"

namespace tessera::comm {
namespace {

std::int64_t width_of(DType dtype) {
  return static_cast<std::int64_t>(size_of(dtype));
}

/// Length of all slices of an all-reduce but the last ones. Slices begin at multiples of 16
/// elements (a cache line of fp32) where there are enough.
std::int64_t slice_length(std::int64_t count, int ranks) {
  constexpr std::int64_t kAlignment = 16;
  const std::int64_t each = ceil_divide(count, ranks);
  return count >= kAlignment * ranks ? round_up(each, kAlignment) : each;
}

void check_count(const char* operation, std::int64_t count) {
  TESSERA_CHECK(count >= 0, Code::invalid_argument,
                fmt::format("{} of {} elements: counts are not negative", operation, count));
}

void check_reducible(const char* operation, DType dtype, Reduction reduction) {
  TESSERA_CHECK(dtype != DType::uint8, Code::invalid_argument,
                fmt::format("{} of {}: reductions are of fp32, bf16, fp16, fp64, int32, int64",
                            operation, to_string(dtype)));
  TESSERA_CHECK(reduction != Reduction::mean || is_floating(dtype), Code::invalid_argument,
                fmt::format("{}: the mean of {} is not a whole number; use sum", operation,
                            to_string(dtype)));
}

/// Pieces one after the other, from their counts.
Pieces adjacent(const char* operation, std::span<const std::int64_t> counts, int ranks,
                std::int64_t scale = 1) {
  TESSERA_CHECK(static_cast<int>(counts.size()) == ranks, Code::invalid_argument,
                fmt::format("{}: {} counts for {} ranks", operation, counts.size(), ranks));
  Pieces pieces;
  pieces.bounds.push_back(0);
  for (const std::int64_t count : counts) {
    check_count(operation, count);
    pieces.bounds.push_back(checked_add(pieces.bounds.back(), checked_multiply(count, scale)));
  }
  return pieces;
}

const std::byte* bytes_of(const void* data) {
  return static_cast<const std::byte*>(data);
}
std::byte* bytes_of(void* data) {
  return static_cast<std::byte*>(data);
}

/// Signatures as they travel in checked mode.
struct WireSignature {
  char operation[32] = {};
  std::int64_t sequence = 0;
  std::int64_t count = 0;
  std::int32_t dtype = 0;
  std::int32_t reduction = 0;
  std::int32_t root = 0;
  std::int32_t unused = 0;
};

}  // namespace

std::int64_t Pieces::longest() const {
  std::int64_t longest = bounds.empty() ? count : 0;
  for (std::size_t q = 1; q < bounds.size(); ++q)
    longest = std::max(longest, bounds[q] - bounds[q - 1]);
  return longest;
}

Pieces slices_of(std::int64_t count, int ranks) {
  const std::int64_t each = slice_length(count, ranks);
  Pieces pieces;
  for (int q = 0; q <= ranks; ++q) pieces.bounds.push_back(std::min(count, q * each));
  return pieces;
}

BaseCommunicator::BaseCommunicator(std::shared_ptr<Group> group)
    : group_(std::move(group)),
      queue_(std::make_shared<OperationQueue>(group_)),
      order_(group_->nodes()) {
  group_->environment().communicators.push_back(this);
}

BaseCommunicator::~BaseCommunicator() {
  retire();
  device_.reset();
  std::erase(group_->environment().communicators, this);
}

void BaseCommunicator::retire() noexcept {
  if (std::exchange(retired_, true) || group_->closed() || group_->environment().broken) return;
  try {
    if (Session::instance().can_close_in_order()) return close();
    // Pending work may need what this destroys: its peers never hear of it, as of a dead rank.
    if (!queue_->empty()) return;
    group_->environment().unwound.push_back([group = group_, close_transport = transport_closer()] {
      if (group->closed() || group->failed()) return;
      const Watchdog::Section guard("closing \"" + group->name() + "\"", group->timeout());
      close_transport();
      group->close();
    });
  } catch (const std::exception& error) {
    log_error(error.what());
  }
}

void BaseCommunicator::close() {
  if (group_->closed()) return;
  if (!group_->failed()) {
    group_->serve_peers();
    queue_->drain();
    if (device_) device_->close();
    const Watchdog::Section guard("closing \"" + name() + "\"", group_->timeout());
    transport_closer()();
  }
  group_->close();
}

void BaseCommunicator::begin(const Signature& signature) {
  group_->check_usable(signature.operation);
  ++group_->sequence;
  if (group_->environment().options.checked && size() > 1) compare_over_ranks(signature);
}

void BaseCommunicator::begin(const Signature& signature, const Stream& stream) {
  check_count(signature.operation, signature.count);
  if (signature.reduction >= 0)
    check_reducible(signature.operation, signature.dtype,
                    static_cast<Reduction>(signature.reduction));
  begin(signature);
  if (!stream.device().is_cpu()) on_device(stream.device());
}

void BaseCommunicator::compare_over_ranks(const Signature& signature) {
  WireSignature mine;
  std::strncpy(mine.operation, signature.operation, sizeof mine.operation - 1);
  mine.sequence = group_->sequence;
  mine.count = signature.count;
  mine.dtype = static_cast<std::int32_t>(signature.dtype);
  mine.reduction = signature.reduction;
  mine.root = signature.root;
  const auto raw = group_->all_gather_fixed(&mine, sizeof mine, signature.operation);
  std::vector<WireSignature> all(static_cast<std::size_t>(size()));
  std::memcpy(all.data(), raw.data(), raw.size());
  const auto text = [&](std::size_t r) {
    const WireSignature& wire = all[r];
    const Signature called{wire.operation, wire.count, static_cast<DType>(wire.dtype),
                           wire.reduction, wire.root};
    return fmt::format("rank {} called {}", r, called.describe());
  };
  for (std::size_t r = 1; r < all.size(); ++r)
    if (std::memcmp(&all[r], &all[0], sizeof mine) != 0) {
      Session::instance().note_agreed_error();
      fail(Code::invalid_argument, fmt::format("mismatched calls on \"{}\" (call {}): {}, {}",
                                               name(), mine.sequence, text(0), text(r)));
    }
}

ScopedSpan BaseCommunicator::record(const Signature& signature, std::int64_t bytes) const {
  return {SpanKind::communication, signature.operation, [&] {
            return SpanDetails{.peer = signature.root,
                               .bytes = bytes >= 0 ? bytes : signature.bytes(),
                               .group = name()};
          }};
}

Work BaseCommunicator::finish(const Signature& signature, Started operation) {
  if (!operation) return {};
  operation->signature = signature;
  return queue_->start(std::move(operation));
}

void BaseCommunicator::count_all_reduce(const char* operation, std::int64_t count,
                                        std::int64_t width) {
  const std::int64_t each = slice_length(count, size());
  const std::int64_t own = std::clamp<std::int64_t>(count - rank() * each, 0, each);
  const std::int64_t elements = count - own + (size() - 1) * own;
  traffic_.add(operation, elements * width, 2 * (size() - 1));
}

Work BaseCommunicator::all_reduce(void* data, std::int64_t count, DType dtype, Reduction reduction,
                                  const Stream& stream) {
  const Signature signature{"all_reduce", count, dtype, static_cast<int>(reduction)};
  begin(signature, stream);
  if (size() == 1 || count == 0) return {};
  count_all_reduce("all_reduce", count, width_of(dtype));
  const ScopedSpan span = record(signature);
  if (!stream.device().is_cpu())
    return device_->all_reduce({signature, stream}, bytes_of(data), count);
  return finish(signature, start_all_reduce(bytes_of(data), count, dtype, reduction));
}

void BaseCommunicator::all_reduce_scalars_raw(void* values, std::int64_t count, DType dtype,
                                              Reduction reduction) {
  const Signature signature{"all_reduce_scalars", count, dtype, static_cast<int>(reduction)};
  begin(signature, Stream());
  if (size() == 1 || count == 0) return;
  count_all_reduce("scalars", count, width_of(dtype));
  const ScopedSpan span = record(signature);
  finish(signature, start_all_reduce(bytes_of(values), count, dtype, reduction)).wait();
}

Work BaseCommunicator::run_reduce_scatter(std::vector<Part> parts, const Signature& signature,
                                          const Stream& stream) {
  std::int64_t elements = 0;
  for (const Part& part : parts) elements += part.pieces.total(size()) - part.pieces.length(rank());
  std::erase_if(parts, [&](const Part& part) { return part.pieces.total(size()) == 0; });
  if (parts.empty()) return {};
  if (size() > 1) traffic_.add("reduce_scatter", elements * width_of(signature.dtype), size() - 1);
  const ScopedSpan span = record(signature);
  if (!stream.device().is_cpu()) return device_->reduce_scatter({signature, stream}, parts);
  return finish(signature, start_reduce_scatter(std::move(parts), signature.dtype,
                                                static_cast<Reduction>(signature.reduction)));
}

Work BaseCommunicator::run_all_gather(std::vector<Part> parts, const Signature& signature,
                                      const Stream& stream) {
  std::int64_t elements = 0;
  for (const Part& part : parts) elements += (size() - 1) * part.pieces.length(rank());
  std::erase_if(parts, [&](const Part& part) { return part.pieces.total(size()) == 0; });
  if (parts.empty()) return {};
  if (size() > 1) traffic_.add("all_gather", elements * width_of(signature.dtype), size() - 1);
  const ScopedSpan span = record(signature);
  if (!stream.device().is_cpu()) return device_->all_gather({signature, stream}, parts);
  return finish(signature, start_all_gather(std::move(parts), signature.dtype));
}

Work BaseCommunicator::reduce_scatter(std::span<const ScatterPart> parts, DType dtype,
                                      Reduction reduction, const Stream& stream) {
  Signature signature{"reduce_scatter", 0, dtype, static_cast<int>(reduction)};
  std::vector<Part> list;
  for (const ScatterPart& part : parts) {
    check_count(signature.operation, part.count);
    signature.count = checked_add(signature.count, checked_multiply(part.count, size()));
    list.push_back({bytes_of(part.send), bytes_of(part.receive), {part.stride, part.count, {}}});
  }
  begin(signature, stream);
  return run_reduce_scatter(std::move(list), signature, stream);
}

Work BaseCommunicator::all_gather(std::span<const GatherPart> parts, DType dtype,
                                  const Stream& stream) {
  Signature signature{"all_gather", 0, dtype};
  std::vector<Part> list;
  for (const GatherPart& part : parts) {
    check_count(signature.operation, part.count);
    signature.count = checked_add(signature.count, checked_multiply(part.count, size()));
    list.push_back({bytes_of(part.send), bytes_of(part.receive), {part.stride, part.count, {}}});
  }
  begin(signature, stream);
  return run_all_gather(std::move(list), signature, stream);
}

Work BaseCommunicator::reduce_scatter_v(const void* send, void* receive,
                                        std::span<const std::int64_t> counts, DType dtype,
                                        Reduction reduction, const Stream& stream) {
  Pieces pieces = adjacent("reduce_scatter_v", counts, size());
  const Signature signature{"reduce_scatter_v", pieces.total(size()), dtype,
                            static_cast<int>(reduction)};
  begin(signature, stream);
  return run_reduce_scatter({{bytes_of(send), bytes_of(receive), std::move(pieces)}}, signature,
                            stream);
}

Work BaseCommunicator::all_gather_v(const void* send, void* receive,
                                    std::span<const std::int64_t> counts, DType dtype,
                                    const Stream& stream) {
  Pieces pieces = adjacent("all_gather_v", counts, size());
  const Signature signature{"all_gather_v", pieces.total(size()), dtype};
  begin(signature, stream);
  return run_all_gather({{bytes_of(send), bytes_of(receive), std::move(pieces)}}, signature,
                        stream);
}

Work BaseCommunicator::broadcast(void* data, std::int64_t count, DType dtype, int root,
                                 const Stream& stream) {
  const Signature signature{"broadcast", count, dtype, -1, root};
  TESSERA_CHECK(root >= 0 && root < size(), Code::invalid_argument,
                fmt::format("broadcast from rank {} in a group of {}", root, size()));
  begin(signature, stream);
  if (size() == 1 || count == 0) return {};
  const std::int64_t bytes = checked_multiply(count, width_of(dtype));
  if (rank() == root) traffic_.add("broadcast", (size() - 1) * bytes, size() - 1);
  const ScopedSpan span = record(signature);
  if (!stream.device().is_cpu())
    return device_->broadcast({signature, stream}, bytes_of(data), bytes, root);
  return finish(signature, start_broadcast(bytes_of(data), bytes, root));
}

Work BaseCommunicator::all_to_all_v(const void* send, std::span<const std::int64_t> send_counts,
                                    void* receive, std::span<const std::int64_t> receive_counts,
                                    DType dtype, const Stream& stream) {
  // Counts differ over ranks by right, so the comparison leaves them out.
  const Signature signature{"all_to_all_v", 0, dtype};
  const std::int64_t width = width_of(dtype);
  Pieces out = adjacent("all_to_all_v", send_counts, size(), width);
  Pieces in = adjacent("all_to_all_v", receive_counts, size(), width);
  TESSERA_CHECK(out.length(rank()) == in.length(rank()), Code::invalid_argument,
                fmt::format("all_to_all_v: rank {} sends itself {} bytes and expects {}", rank(),
                            out.length(rank()), in.length(rank())));
  begin(signature, stream);
  if (size() > 1) traffic_.add("all_to_all", out.total(size()) - out.length(rank()), size() - 1);
  const ScopedSpan span = record(signature, out.total(size()));
  if (!stream.device().is_cpu())
    return device_->all_to_all({signature, stream}, bytes_of(send), out, bytes_of(receive), in);
  return finish(signature,
                start_all_to_all(bytes_of(send), std::move(out), bytes_of(receive), std::move(in)));
}

Work BaseCommunicator::send(const void* data, std::int64_t count, DType dtype, int to, int tag,
                            const Stream& stream) {
  const Signature signature{"send", count, dtype, -1, to};
  check_count("send", count);
  group_->check_usable("send");
  const std::int64_t bytes = checked_multiply(count, width_of(dtype));
  if (to != rank()) traffic_.add("send", bytes, 1);
  const ScopedSpan span = record(signature);
  if (!stream.device().is_cpu())
    return opened(signature, stream.device())
        .send({signature, stream}, bytes_of(data), bytes, to, tag);
  auto message = std::make_shared<PointMessage>(*group_, tag);
  message->signature = signature;
  message->messages().send(data, bytes, to);
  return queue_->start_message(std::move(message));
}

Work BaseCommunicator::receive(void* data, std::int64_t count, DType dtype, int from, int tag,
                               const Stream& stream) {
  const Signature signature{"receive", count, dtype, -1, from};
  check_count("receive", count);
  group_->check_usable("receive");
  const ScopedSpan span = record(signature);
  if (!stream.device().is_cpu())
    return opened(signature, stream.device())
        .receive({signature, stream}, bytes_of(data), checked_multiply(count, width_of(dtype)),
                 from, tag);
  auto message = std::make_shared<PointMessage>(*group_, tag);
  message->signature = signature;
  message->messages().receive(data, checked_multiply(count, width_of(dtype)), from);
  return queue_->start_message(std::move(message));
}

void BaseCommunicator::barrier() {
  const Signature signature{"barrier"};
  begin(signature);
  if (size() == 1) return;
  const ScopedSpan span = record(signature);
  finish(signature, start_barrier()).wait();
}

std::vector<std::string> BaseCommunicator::all_gather_text(const std::string& text) {
  const Signature signature{"all_gather_text"};
  begin(signature);
  const ScopedSpan span = record(signature, std::ssize(text));
  return group_->all_gather_text(text);
}

std::string BaseCommunicator::broadcast_text(const std::string& text, int root) {
  const Signature signature{"broadcast_text", -1, DType::uint8, -1, root};
  begin(signature);
  const ScopedSpan span = record(signature);
  return group_->broadcast_text(text, root);
}

Buffer BaseCommunicator::allocate(std::size_t bytes, Purpose purpose) {
  begin({"allocate"});
  try {
    return allocate_memory(bytes, purpose);
  } catch (const Error& error) {
    // Not every rank may see it, and the others must not wait for this one.
    group_->mark_failed(error.code(), error.what());
    throw;
  }
}

Buffer BaseCommunicator::allocate_memory(std::size_t bytes, Purpose purpose) {
  Buffer buffer = tessera::allocate(bytes, Device{}, purpose);
  if (bytes > 0) std::memset(buffer.data(), 0, bytes);
  return buffer;
}

std::unique_ptr<Communicator> BaseCommunicator::split(int color, int key, const std::string& name) {
  begin({"split"});
  std::unique_ptr<BaseCommunicator> child = split_communicator(*group_, color, key, name);
  // While all ranks are here: a subgroup's own first use has only its members.
  if (device_) {
    std::unique_ptr<DeviceTransport> transport = device_->split(color, key, child.get());
    if (child) child->device_ = std::move(transport);
  }
  return child;
}

// ---- devices ----

DeviceTransport& BaseCommunicator::on_device(Device device) {
  if (!device_) {
    device_ = make_device_transport(*this, device);
    for (int depth = 0; depth < open_groups_; ++depth) device_->group_begin();
  }
  TESSERA_CHECK(device_->device() == device, Code::invalid_argument,
                fmt::format("\"{}\" works with buffers on {}, not on {}: a rank uses one GPU",
                            name(), device_->device().to_string(), device.to_string()));
  return *device_;
}

DeviceTransport& BaseCommunicator::opened(const Signature& signature, Device device) {
  TESSERA_CHECK(device_ || size() <= 2, Code::invalid_argument,
                fmt::format("{} on \"{}\": connecting GPUs takes all ranks of the group; call "
                            "open_device on all of them first",
                            signature.describe(), name()));
  return on_device(device);
}

void BaseCommunicator::open_device(Device device) {
  begin({"open_device"});
  if (!device.is_cpu()) on_device(device);
}

const char* BaseCommunicator::device_transport() const {
  return device_ ? device_->name() : "";
}

Buffer BaseCommunicator::allocate_on(Device device, std::size_t bytes, Purpose purpose) {
  if (device.is_cpu()) return allocate(bytes, purpose);
  begin({"allocate_on"});
  Buffer buffer = on_device(device).allocate(bytes, purpose);
  if (bytes > 0) current_stream(device).fill_zero(buffer.data(), bytes);
  return buffer;
}

void BaseCommunicator::group_begin() {
  ++open_groups_;
  if (device_) device_->group_begin();
}

void BaseCommunicator::group_end() {
  TESSERA_CHECK(open_groups_ > 0, Code::invalid_argument, "group_end without group_begin");
  --open_groups_;
  if (device_) device_->group_end();
}

void BaseCommunicator::progress() {
  queue_->progress();
  if (device_) device_->poll();
}

void BaseCommunicator::progress_quietly() noexcept {
  queue_->progress_quietly();
  if (!device_ || group_->failed() || group_->closed()) return;
  try {
    device_->poll();
  } catch (const std::exception&) {
    // Kept by mark_failed; the next call on this communicator throws it.
  }
}

}  // namespace tessera::comm
