// SPDX-License-Identifier: Apache-2.0
// What the runtime keeps for each thread of the host.
#pragma once

#include <driver_types.h>
#include <functional>
#include <string_view>
#include <vector_types.h>

namespace tessera::emulation {

int current_device();
/// Keeps an error for cudaGetLastError and returns it.
cudaError_t set_last_error(cudaError_t error);

cudaError_t launch_from(const void* module, std::string_view name, dim3 blocks, dim3 threads,
                        std::size_t shared_bytes, cudaStream_t stream,
                        std::function<void()> thread);

}  // namespace tessera::emulation
