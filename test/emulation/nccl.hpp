// SPDX-License-Identifier: Apache-2.0
// What tests may ask of the emulated NCCL.
#pragma once

#include <nccl.h>

namespace tessera::emulation {

/// From now on every communicator of this process reports this error, as after a broken network;
/// ncclSuccess ends it.
void set_nccl_async_error(ncclResult_t error);

/// NCCL communicators of this process that are neither destroyed nor aborted.
int open_nccl_communicators();

}  // namespace tessera::emulation
