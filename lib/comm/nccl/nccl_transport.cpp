// SPDX-License-Identifier: Apache-2.0
// Device buffers through NCCL: operations, their order and their failures.
#include "comm/nccl/nccl_transport.hpp"

#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/log.hpp"
#include "tessera/device/cuda.hpp"

#include "comm/nccl/nccl_call.hpp"
#include "comm/watchdog.hpp"
#include "device/cuda/check.hpp"
#include "device/cuda/device_guard.hpp"
#include "device/cuda/wait_hook.hpp"

namespace tessera::comm {

namespace {

std::vector<NcclTransport*>& living() {
  static auto* transports = new std::vector<NcclTransport*>;
  return *transports;
}

void watch_all() {
  for (std::size_t i = 0; i < living().size(); ++i) living()[i]->watch();
}

ncclUniqueId exchange_id(Group& group) {
  ncclUniqueId id{};
  std::string text;
  if (group.rank() == 0 && ncclGetUniqueId(&id) == ncclSuccess)
    text.assign(id.internal, sizeof id.internal);
  text = group.broadcast_text(text, 0);
  TESSERA_CHECK(text.size() == sizeof id.internal, Code::nccl,
                "NCCL gave rank 0 no address to meet at; NCCL_DEBUG=INFO tells more, and "
                "NCCL_SOCKET_IFNAME names the network to use");
  std::memcpy(id.internal, text.data(), text.size());
  return id;
}

std::size_t elements(std::int64_t count) {
  return static_cast<std::size_t>(count);
}

bool equal_and_adjacent(const Part& part) {
  return part.pieces.bounds.empty() && part.pieces.stride == part.pieces.count;
}

}  // namespace

/// What a Work holds. The communicator outlives it, or it throws.
class NcclTransport::FlightState final : public Work::State {
 public:
  FlightState(NcclTransport& transport, std::shared_ptr<Flight> flight, Stream stream)
      : transport_(transport), flight_(std::move(flight)), stream_(std::move(stream)) {}
  bool test() override {
    transport_.poll();
    return flight_->launched && flight_->done.reached();
  }
  void wait() override {
    transport_.poll();
    TESSERA_CHECK(flight_->launched, Code::invalid_argument,
                  flight_->signature.describe() + ": waited for before group_end");
    stream_.wait(flight_->done);
  }

 private:
  NcclTransport& transport_;
  std::shared_ptr<Flight> flight_;
  Stream stream_;
};

NcclTransport::NcclTransport(std::shared_ptr<Group> group, Device device, ncclComm_t communicator)
    : group_(std::move(group)),
      device_(device),
      stream_(make_stream(device, StreamPriority::high)) {
  handle_->communicator = communicator;
  living().push_back(this);
  cuda::set_wait_hook(watch_all);
}

NcclTransport::NcclTransport(std::shared_ptr<Group> group, Device device)
    : NcclTransport(std::move(group), device, nullptr) {
  const ncclUniqueId id = exchange_id(*group_);
  const cuda::DeviceGuard guard(device_.index);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  settle(
      ncclCommInitRankConfig(&handle_->communicator, group_->size(), id, group_->rank(), &config),
      "connecting the GPUs");
}

NcclTransport::~NcclTransport() {
  std::erase(living(), this);
  if (living().empty()) cuda::set_wait_hook(nullptr);
  abort();
}

ncclComm_t NcclTransport::communicator() const {
  TESSERA_CHECK(handle_->communicator != nullptr, Code::peer_failed,
                "NCCL on \"" + group_->name() + "\" was closed or ended by an error");
  return handle_->communicator;
}

// ---- failures ----

void NcclTransport::abort() noexcept {
  if (handle_->communicator == nullptr) return;
  ncclCommAbort(handle_->communicator);  // what it says helps nobody any more
  handle_->communicator = nullptr;
  flights_.clear();
}

void NcclTransport::break_down(Code code, const std::string& what, const std::string& why) {
  const std::string text =
      fmt::format("rank {}, {} on \"{}\": {}", group_->rank(), what, group_->name(), why);
  abort();
  group_->mark_failed(code, text);
  fail(code, text);
}

void NcclTransport::call(ncclResult_t result) {
  if (result == ncclSuccess || result == ncclInProgress) return;
  break_down(Code::nccl, "a call of NCCL", describe(result, handle_->communicator));
}

void NcclTransport::settle(ncclResult_t result, const char* what) {
  settle(handle_->communicator, result, what);
}

void NcclTransport::settle(ncclComm_t communicator, ncclResult_t result, const char* what) {
  if (result == ncclInProgress && communicator != nullptr) {
    try {
      group_->await(
          [&] {
            ncclCommGetAsyncError(communicator, &result);
            return result != ncclInProgress;
          },
          {[what] { return std::string(what); }});
    } catch (const Error&) {
      abort();
      throw;
    }
  }
  if (result != ncclSuccess) break_down(Code::nccl, what, describe(result, communicator));
}

void NcclTransport::land() {
  while (!flights_.empty() && flights_.front()->done.reached()) flights_.pop_front();
}

void NcclTransport::poll() {
  if (handle_->communicator == nullptr) return;
  ncclResult_t state = ncclSuccess;
  ncclCommGetAsyncError(handle_->communicator, &state);
  const auto what = [this] {
    return flights_.empty() ? std::string("no operation") : flights_.front()->signature.describe();
  };
  if (state != ncclSuccess && state != ncclInProgress)
    break_down(Code::nccl, what(), describe(state, handle_->communicator));
  land();
  if (flights_.empty() || group_->timeout() <= 0) return;
  const std::chrono::duration<double> age = Clock::now() - flights_.front()->start;
  if (age.count() > group_->timeout())
    break_down(Code::timeout, what(),
               fmt::format("took longer than comm.timeout_seconds = {}: a rank did not call it, or "
                           "its GPU or network is stuck",
                           group_->timeout()));
}

void NcclTransport::watch() {
  if (handle_->communicator == nullptr) return;
  try {
    if (!group_->closed()) group_->serve_peers();
  } catch (const Error&) {
    abort();
    throw;
  }
  poll();
}

// ---- operations ----

Work NcclTransport::launch(const DeviceCall& call_, const Body& body) {
  poll();
  const ncclComm_t open = communicator();
  const cuda::DeviceGuard guard(device_.index);
  stream_.wait(call_.stream.record());
  auto flight = std::make_shared<Flight>();
  flight->signature = call_.signature;
  waiting_.push_back(flight);
  call(ncclGroupStart());
  body(open, static_cast<cudaStream_t>(stream_.native_handle()));
  const ncclResult_t result = ncclGroupEnd();
  if (depth_ == 0) {
    settle(result, "starting an operation");
    lift_off();
  } else {
    call(result);
  }
  return Work(std::make_shared<FlightState>(*this, std::move(flight), call_.stream));
}

/// The operations are on our stream now.
void NcclTransport::lift_off() {
  if (waiting_.empty()) return;
  const Event done = stream_.record();
  for (std::shared_ptr<Flight>& flight : waiting_) {
    flight->done = done;
    flight->launched = true;
    flights_.push_back(std::move(flight));
  }
  waiting_.clear();
}

void NcclTransport::group_begin() {
  if (depth_++ == 0) call(ncclGroupStart());
}

void NcclTransport::group_end() {
  if (--depth_ > 0) return;
  const cuda::DeviceGuard guard(device_.index);
  settle(ncclGroupEnd(), "starting a group of operations");
  lift_off();
}

Work NcclTransport::all_reduce(const DeviceCall& call_, std::byte* data, std::int64_t count) {
  return launch(call_, [&](ncclComm_t open, cudaStream_t stream) {
    call(ncclAllReduce(data, data, elements(count), nccl_type(call_.dtype()),
                       nccl_operation(call_.reduction()), open, stream));
  });
}

// Pieces at a stride, or of different lengths, are reduced each to its owner.
Work NcclTransport::reduce_scatter(const DeviceCall& call_, const std::vector<Part>& parts) {
  const ncclDataType_t type = nccl_type(call_.dtype());
  const ncclRedOp_t operation = nccl_operation(call_.reduction());
  const auto width = static_cast<std::int64_t>(size_of(call_.dtype()));
  return launch(call_, [&](ncclComm_t open, cudaStream_t stream) {
    for (const Part& part : parts) {
      if (equal_and_adjacent(part)) {
        call(ncclReduceScatter(part.send, part.receive, elements(part.pieces.count), type,
                               operation, open, stream));
        continue;
      }
      for (int q = 0; q < group_->size(); ++q)
        if (part.pieces.length(q) > 0)
          call(ncclReduce(part.send + part.pieces.offset(q) * width, part.receive,
                          elements(part.pieces.length(q)), type, operation, q, open, stream));
    }
  });
}

Work NcclTransport::all_gather(const DeviceCall& call_, const std::vector<Part>& parts) {
  const ncclDataType_t type = nccl_type(call_.dtype());
  const auto width = static_cast<std::int64_t>(size_of(call_.dtype()));
  return launch(call_, [&](ncclComm_t open, cudaStream_t stream) {
    for (const Part& part : parts) {
      if (equal_and_adjacent(part)) {
        call(ncclAllGather(part.send, part.receive, elements(part.pieces.count), type, open,
                           stream));
        continue;
      }
      for (int q = 0; q < group_->size(); ++q)
        if (part.pieces.length(q) > 0)
          call(ncclBroadcast(part.send, part.receive + part.pieces.offset(q) * width,
                             elements(part.pieces.length(q)), type, q, open, stream));
    }
  });
}

Work NcclTransport::broadcast(const DeviceCall& call_, std::byte* data, std::int64_t bytes,
                              int root) {
  return launch(call_, [&](ncclComm_t open, cudaStream_t stream) {
    call(ncclBroadcast(data, data, elements(bytes), ncclUint8, root, open, stream));
  });
}

Work NcclTransport::all_to_all(const DeviceCall& call_, const std::byte* send,
                               const Pieces& send_bytes, std::byte* receive,
                               const Pieces& receive_bytes) {
  return launch(call_, [&](ncclComm_t open, cudaStream_t stream) {
    for (int q = 0; q < group_->size(); ++q) {
      if (send_bytes.length(q) > 0)
        call(ncclSend(send + send_bytes.offset(q), elements(send_bytes.length(q)), ncclUint8, q,
                      open, stream));
      if (receive_bytes.length(q) > 0)
        call(ncclRecv(receive + receive_bytes.offset(q), elements(receive_bytes.length(q)),
                      ncclUint8, q, open, stream));
    }
  });
}

Work NcclTransport::send(const DeviceCall& call_, const std::byte* data, std::int64_t bytes, int to,
                         int) {
  return launch(call_, [&](ncclComm_t open, cudaStream_t stream) {
    call(ncclSend(data, elements(bytes), ncclUint8, to, open, stream));
  });
}

Work NcclTransport::receive(const DeviceCall& call_, std::byte* data, std::int64_t bytes, int from,
                            int) {
  return launch(call_, [&](ncclComm_t open, cudaStream_t stream) {
    call(ncclRecv(data, elements(bytes), ncclUint8, from, open, stream));
  });
}

// ---- life ----

Buffer NcclTransport::allocate(std::size_t bytes, Purpose purpose) {
  if (bytes == 0) return {};
  const cuda::DeviceGuard guard(device_.index);
  void* data = nullptr;
  if (ncclMemAlloc(&data, bytes) != ncclSuccess)
    return tessera::allocate(bytes, device_, purpose);  // and its message when there is no memory
  void* registration = nullptr;
  settle(ncclCommRegister(communicator(), data, bytes, &registration), "registering a buffer");
  const auto release = [handle = std::weak_ptr(handle_), registration, device = device_](
                           void* block, std::size_t) {
    const cuda::DeviceGuard inner(device.index);
    cuda::warn_cuda(cudaDeviceSynchronize(), "waiting for users of a registered buffer");
    const std::shared_ptr<Handle> open = handle.lock();
    if (open && open->communicator != nullptr) ncclCommDeregister(open->communicator, registration);
    if (ncclMemFree(block) != ncclSuccess) log_warning("NCCL could not free a registered buffer");
  };
  return Buffer(data, bytes, device_, purpose, release);
}

std::unique_ptr<DeviceTransport> NcclTransport::split(int color, int key, BaseCommunicator* child) {
  const cuda::DeviceGuard guard(device_.index);
  const bool alone = child == nullptr || child->size() == 1;
  ncclComm_t fresh = nullptr;
  settle(ncclCommSplit(communicator(), alone ? NCCL_SPLIT_NOCOLOR : color, key, &fresh, nullptr),
         "splitting a group");
  if (child == nullptr) return nullptr;
  if (alone) return make_lone_transport(device_);
  std::unique_ptr<NcclTransport> transport(
      new NcclTransport(child->shared_group(), device_, fresh));
  transport->settle(ncclInProgress, "connecting the GPUs of a subgroup");
  return transport;
}

void NcclTransport::close() {
  if (handle_->communicator == nullptr) return;
  const cuda::DeviceGuard guard(device_.index);
  group_->await(
      [this] {
        poll();
        return flights_.empty();
      },
      {[this] { return flights_.empty() ? "closing" : flights_.front()->signature.describe(); }});
  settle(ncclCommFinalize(handle_->communicator), "closing NCCL");
  if (const ncclResult_t result = ncclCommDestroy(handle_->communicator); result != ncclSuccess)
    log_warning("closing NCCL on \"" + group_->name() + "\": " + describe(result, nullptr));
  handle_->communicator = nullptr;
}

std::unique_ptr<DeviceTransport> make_nccl_transport(std::shared_ptr<Group> group, Device device) {
  return std::make_unique<NcclTransport>(std::move(group), device);
}

}  // namespace tessera::comm
