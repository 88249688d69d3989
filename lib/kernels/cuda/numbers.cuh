// SPDX-License-Identifier: Apache-2.0
// Element types on a GPU: which ones an operation computes on, and how they turn into fp32 and
// back.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <string>

#include "tessera/base/dtype.hpp"
#include "tessera/base/error.hpp"

namespace tessera::kernels::cuda {

__device__ inline float to_float(float value) {
  return value;
}
__device__ inline float to_float(__nv_bfloat16 value) {
  return __bfloat162float(value);
}
__device__ inline float to_float(__half value) {
  return __half2float(value);
}
__device__ inline float to_float(double value) {
  return static_cast<float>(value);
}

/// Rounds to nearest even.
template <typename T>
__device__ T round_to(float value);
template <>
__device__ inline float round_to<float>(float value) {
  return value;
}
template <>
__device__ inline __nv_bfloat16 round_to<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}
template <>
__device__ inline __half round_to<__half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ inline double round_to<double>(float value) {
  return static_cast<double>(value);
}

/// Calls body(T{}) with the device's type for `dtype`; others than fp32, bf16 and fp16 are refused.
template <typename Body>
void dispatch_type(DType dtype, const char* operation, Body&& body) {
  switch (dtype) {
    case DType::fp32:
      return body(float{});
    case DType::bf16:
      return body(__nv_bfloat16{});
    case DType::fp16:
      return body(__half{});
    default:
      fail(Code::not_supported,
           std::string(operation) + " works on fp32, bf16 and fp16, not on " + to_string(dtype));
  }
}

}  // namespace tessera::kernels::cuda
