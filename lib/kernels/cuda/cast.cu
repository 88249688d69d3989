// SPDX-License-Identifier: Apache-2.0
// Conversion between floating types on a GPU: round to nearest even, as the CPU does.
#include <algorithm>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <string>

#include "tessera/base/error.hpp"

#include "device/cuda/launch.hpp"
#include "kernels/cuda/operations.hpp"

namespace tessera::kernels::cuda {

namespace {

__device__ inline float widen(float x) {
  return x;
}
__device__ inline float widen(__nv_bfloat16 x) {
  return __bfloat162float(x);
}
__device__ inline float widen(__half x) {
  return __half2float(x);
}

__device__ inline void store(float* y, float x) {
  *y = x;
}
__device__ inline void store(__nv_bfloat16* y, float x) {
  *y = __float2bfloat16_rn(x);
}
__device__ inline void store(__half* y, float x) {
  *y = __float2half_rn(x);
}

template <class From, class To>
__global__ void cast_kernel(const From* x, To* y, std::int64_t count) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; i < count; i += step) store(y + i, widen(x[i]));
}

template <class Body>
void with_type(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::fp32:
      return body(float{});
    case DType::bf16:
      return body(__nv_bfloat16{});
    case DType::fp16:
      return body(__half{});
    default:
      fail(Code::not_supported,
           std::string("cast on a GPU knows fp32, bf16 and fp16, not ") + to_string(dtype));
  }
}

}  // namespace

void cast(const Stream& stream, const void* x, DType x_type, void* y, DType y_type,
          std::int64_t count) {
  constexpr int kThreads = 256;
  const auto blocks =
      static_cast<unsigned>(std::min<std::int64_t>((count + kThreads - 1) / kThreads, 65535));
  with_type(x_type, [&]<class From>(From) {
    with_type(y_type, [&]<class To>(To) {
      tessera::cuda::launch<cast_kernel<From, To>>(stream, dim3(blocks), dim3(kThreads), 0,
                                                   static_cast<const From*>(x), static_cast<To*>(y),
                                                   count);
    });
  });
}

}  // namespace tessera::kernels::cuda
