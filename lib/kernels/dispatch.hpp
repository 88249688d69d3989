// SPDX-License-Identifier: Apache-2.0
// What every operation does before its loop: choose the element type.
#pragma once

#include <string>
#include <type_traits>

#include "tessera/base/dtype.hpp"
#include "tessera/base/error.hpp"

namespace tessera::kernels {

/// Calls body(T{}) with T float, bf16 or fp16; others are refused. All compute in fp32.
template <typename Body>
void dispatch_float(DType dtype, const char* operation, Body&& body) {
  switch (dtype) {
    case DType::fp32:
      return body(float{});
    case DType::bf16:
      return body(bf16{});
    case DType::fp16:
      return body(fp16{});
    default:
      fail(Code::not_supported,
           std::string(operation) + " works on fp32, bf16 and fp16, not on " + to_string(dtype));
  }
}

}  // namespace tessera::kernels
