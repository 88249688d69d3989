// SPDX-License-Identifier: Apache-2.0
// What this build has for buffers of GPUs.
#pragma once

#include <string>

namespace tessera {

/// "2.28.9", of the NCCL that this process uses; empty in builds without it.
std::string nccl_version();

}  // namespace tessera
