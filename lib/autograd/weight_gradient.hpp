// SPDX-License-Identifier: Apache-2.0
// Checks that every operation makes before it writes a weight's gradient.
#pragma once

#include "tessera/autograd/weight.hpp"
#include "tessera/base/error.hpp"

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

}  // namespace tessera::autograd
