// SPDX-License-Identifier: Apache-2.0
// NCCL's names for ours.
#pragma once

#include <nccl.h>
#include <string>

#include "tessera/base/dtype.hpp"
#include "tessera/comm/communicator.hpp"

namespace tessera::comm {

ncclDataType_t nccl_type(DType dtype);
/// A mean of floating types multiplies by 1/N before the sum, which keeps 16-bit sums in range.
ncclRedOp_t nccl_operation(Reduction reduction);
/// "ncclRemoteError: a call failed probably due to a network error (last error: …)"
std::string describe(ncclResult_t result, ncclComm_t communicator);

}  // namespace tessera::comm
