// SPDX-License-Identifier: Apache-2.0
// Whose kernels compute a run's attention on GPUs.
#pragma once

#include <string>

#include "tessera/config/run_config.hpp"
#include "tessera/device/device.hpp"
#include "tessera/kernels/attention.hpp"

namespace tessera::engine {

/// What `run.attention` asks for. Errors: not_supported where that is cuDNN and it cannot be had on
/// `device`, or not for the run's type.
kernels::AttentionKernels choose_attention(const config::RunConfig& config, Device device);

/// What that means on a GPU, for people.
std::string describe_attention(kernels::AttentionKernels kernels);

}  // namespace tessera::engine
