// SPDX-License-Identifier: Apache-2.0
// Checks that every operation makes before it writes a weight's gradient.
#pragma once

#include "tessera/autograd/weight.hpp"
#include "tessera/base/error.hpp"
#include "tessera/kernels/elementwise.hpp"

namespace tessera::autograd {

/// The weight's elements; internal error when its unit was not acquired.
inline void* attached_value(const Weight& weight) {
  TESSERA_CHECK(weight.value, Code::internal, "a weight is used while its unit is not acquired");
  return weight.value.data();
}

/// The gradient's elements, to be written by the caller with `accumulate`; marks it as written.
struct GradientTarget {
  void* data;
  DType dtype;
  bool accumulate;
};
inline GradientTarget gradient_target(Weight& weight) {
  TESSERA_CHECK(weight.gradient, Code::internal,
                "a trainable weight has no gradient attached in the backward pass");
  const bool accumulate = weight.gradient_written;
  weight.gradient_written = true;
  return {weight.gradient.data(), weight.gradient.dtype(), accumulate};
}

/// Adds or writes a gradient that was computed apart, in fp32, in one contiguous piece.
inline void write_gradient(const Stream& stream, const Tensor& gradient, Weight& weight) {
  const GradientTarget target = gradient_target(weight);
  if (target.accumulate)
    kernels::accumulate(stream, gradient.data(), DType::fp32, 1, target.data, target.dtype,
                        gradient.numel());
  else
    kernels::cast(stream, gradient.data(), DType::fp32, target.data, target.dtype,
                  gradient.numel());
}

}  // namespace tessera::autograd
