// SPDX-License-Identifier: Apache-2.0
// NCCL in a build without it.
#include "tessera/base/error.hpp"
#include "tessera/comm/device_transport.hpp"

#include "comm/device_transport.hpp"

namespace tessera {

std::string nccl_version() {
  return "";
}

namespace comm {

std::string nccl_unavailable_reason() {
  return "this build has no NCCL (configure with TESSERA_ENABLE_NCCL=on)";
}

std::unique_ptr<DeviceTransport> make_nccl_transport(std::shared_ptr<Group>, Device) {
  fail(Code::not_supported, nccl_unavailable_reason());
}

}  // namespace comm

}  // namespace tessera
