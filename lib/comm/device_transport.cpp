// SPDX-License-Identifier: Apache-2.0
// Chooses how device buffers move.
#include "comm/device_transport.hpp"

#include <array>
#include <cstdlib>
#include <cstring>
#include <map>
#include <unistd.h>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/log.hpp"
#include "tessera/device/cuda.hpp"

namespace tessera::comm {

namespace {

std::size_t bytes_of(const DeviceCall& call, std::int64_t count) {
  return static_cast<std::size_t>(count) * size_of(call.dtype());
}

class LoneTransport final : public DeviceTransport {
 public:
  explicit LoneTransport(Device device) : device_(device) {}
  const char* name() const override { return "self"; }
  Device device() const override { return device_; }

  Work all_reduce(const DeviceCall&, std::byte*, std::int64_t) override { return {}; }
  Work reduce_scatter(const DeviceCall& call, const std::vector<Part>& parts) override {
    return copy(call, parts);
  }
  Work all_gather(const DeviceCall& call, const std::vector<Part>& parts) override {
    return copy(call, parts);
  }
  Work broadcast(const DeviceCall&, std::byte*, std::int64_t, int) override { return {}; }
  Work all_to_all(const DeviceCall& call, const std::byte* send, const Pieces& send_bytes,
                  std::byte* receive, const Pieces&) override {
    if (send != receive)
      call.stream.copy(receive, send, static_cast<std::size_t>(send_bytes.total(1)));
    return {};
  }
  Work send(const DeviceCall& call, const std::byte*, std::int64_t, int, int) override {
    refuse(call);
  }
  Work receive(const DeviceCall& call, std::byte*, std::int64_t, int, int) override {
    refuse(call);
  }

 private:
  static Work copy(const DeviceCall& call, const std::vector<Part>& parts) {
    for (const Part& part : parts)
      if (part.send != part.receive)
        call.stream.copy(part.receive, part.send, bytes_of(call, part.pieces.length(0)));
    return {};
  }
  [[noreturn]] static void refuse(const DeviceCall& call) {
    fail(Code::not_supported, fmt::format("{}: a rank does not send device memory to itself; copy "
                                          "it on its stream",
                                          call.signature.describe()));
  }

  Device device_;
};

/// Lists of ranks that use the same card, for people; empty if each has its own.
std::string shared_cards(BaseCommunicator& host, Device device) {
  std::array<char, 256> machine{};
  gethostname(machine.data(), machine.size() - 1);
  const std::vector<std::string> cards = host.all_gather_text(
      std::string(machine.data()) + " " + describe_cuda_device(device).identity);
  std::map<std::string, std::string> ranks;
  std::string text;
  for (std::size_t r = 0; r < cards.size(); ++r) {
    std::string& list = ranks[cards[r]];
    if (!list.empty() && text.empty()) text = fmt::format("ranks {} and {}", list, r);
    if (list.empty()) list = std::to_string(r);
  }
  return text;
}

// NCCL from 2.30 on can be told to accept it.
bool may_share_cards() {
  const char* value = std::getenv("NCCL_MULTI_RANK_GPU_ENABLE");
  return value != nullptr && std::strcmp(value, "1") == 0;
}

std::string why_not_nccl(BaseCommunicator& host, Device device) {
  if (std::string reason = nccl_unavailable_reason(); !reason.empty()) return reason;
  const std::string shared = shared_cards(host, device);
  if (shared.empty() || may_share_cards()) return "";
  return shared + " use the same GPU, which NCCL refuses: start one rank for each GPU";
}

}  // namespace

std::unique_ptr<DeviceTransport> make_lone_transport(Device device) {
  return std::make_unique<LoneTransport>(device);
}

std::unique_ptr<DeviceTransport> make_device_transport(BaseCommunicator& host, Device device) {
  if (host.size() == 1) return make_lone_transport(device);
  const std::string& asked = host.group().environment().options.device_transport;
  if (asked == "mpi") return make_staged_transport(host, device);
  const std::string reason = why_not_nccl(host, device);
  if (reason.empty()) return make_nccl_transport(host.shared_group(), device);
  TESSERA_CHECK(asked != "nccl", Code::invalid_config,
                "comm.device_transport nccl is not possible: " + reason);
  if (host.rank() == 0)
    log_warning_once("device buffers go through MPI and host memory, which is slower: " + reason);
  return make_staged_transport(host, device);
}

}  // namespace tessera::comm
