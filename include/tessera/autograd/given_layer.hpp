// SPDX-License-Identifier: Apache-2.0
// A layer that somebody else computes.
#pragma once

#include <cstdint>
#include <functional>

#include "tessera/autograd/tape.hpp"
#include "tessera/autograd/weight.hpp"

namespace tessera::autograd {

/// y = f(x, w) of rows of numbers and its gradients. All tensors are fp32: x and dx [rows, inputs],
/// y and dy [rows, outputs], w and dw [parameters], undefined for a layer without parameters. Not
/// called for 0 rows. On a GPU all of them lie there; the stream has been waited for, and results
/// have to be there when the function returns.
struct LayerFunctions {
  /// Writes all of y.
  std::function<void(const Tensor& x, const Tensor& w, const Tensor& y)> forward;
  /// Writes dx and, summed over the rows, dw, which hold zeros before.
  std::function<void(const Tensor& x, const Tensor& w, const Tensor& dy, const Tensor& dx,
                     const Tensor& dw)>
      backward;
};

/// x [rows, inputs] -> [rows, outputs], in the type of x. `weight` [parameters] may be nullptr.
/// Keeps x until the backward pass.
Value given_layer(Tape& tape, const Value& x, Weight* weight, std::int64_t outputs,
                  const LayerFunctions& functions);

}  // namespace tessera::autograd
