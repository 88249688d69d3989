// SPDX-License-Identifier: Apache-2.0
// NCCL's names for ours.
#include "comm/nccl/nccl_call.hpp"

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/comm/device_transport.hpp"

#include "comm/device_transport.hpp"

namespace tessera {

std::string nccl_version() {
  int version = 0;
  if (ncclGetVersion(&version) != ncclSuccess) return "";
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

namespace comm {

std::string nccl_unavailable_reason() {
  return "";
}

ncclDataType_t nccl_type(DType dtype) {
  switch (dtype) {
    case DType::fp32:
      return ncclFloat32;
    case DType::bf16:
      return ncclBfloat16;
    case DType::fp16:
      return ncclFloat16;
    case DType::fp64:
      return ncclFloat64;
    case DType::int32:
      return ncclInt32;
    case DType::int64:
      return ncclInt64;
    case DType::uint8:
      return ncclUint8;
  }
  fail(Code::internal, "NCCL has no such type");
}

ncclRedOp_t nccl_operation(Reduction reduction) {
  switch (reduction) {
    case Reduction::sum:
      return ncclSum;
    case Reduction::mean:
      return ncclAvg;
    case Reduction::min:
      return ncclMin;
    case Reduction::max:
      return ncclMax;
  }
  fail(Code::internal, "NCCL has no such reduction");
}

std::string describe(ncclResult_t result, ncclComm_t communicator) {
  const char* last = ncclGetLastError(communicator);
  return fmt::format("NCCL: {}{}", ncclGetErrorString(result),
                     last == nullptr || *last == '\0' ? "" : fmt::format(" ({})", last));
}

}  // namespace comm

}  // namespace tessera
