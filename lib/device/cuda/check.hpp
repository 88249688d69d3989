// SPDX-License-Identifier: Apache-2.0
// Results of CUDA runtime calls as errors of the library.
#pragma once

#include <cuda_runtime_api.h>

namespace tessera::cuda {

/// Throws for anything but cudaSuccess: `what` was being done, CUDA's name and text of the error,
/// and what to do. A lack of memory is Code::out_of_memory, the rest Code::cuda.
void check_cuda(cudaError_t result, const char* what);

/// For destructors: logs instead of throwing.
void warn_cuda(cudaError_t result, const char* what) noexcept;

}  // namespace tessera::cuda
