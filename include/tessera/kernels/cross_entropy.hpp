// SPDX-License-Identifier: Apache-2.0
// Softmax cross-entropy fused with its gradient.
#pragma once

#include <cstdint>

#include "tessera/base/dtype.hpp"
#include "tessera/device/stream.hpp"
#include "tessera/kernels/pass_variables.hpp"

namespace tessera::kernels {

/// losses[r] = logsumexp(logits[r, 0..valid_columns)) - logits[r, targets[r]] in fp32; 0 for
/// targets < 0. If dlogits is set: dlogits[r, j] = (softmax - onehot) * scale, zero rows for
/// targets < 0 and zero in the padding columns; it may be logits (in place). Targets must be below
/// valid_columns: invalid_argument names the first that is not; on a GPU its loss is NaN.
struct CrossEntropy {
  const void* logits;           // [rows, columns]
  const std::int32_t* targets;  // [rows]
  float* losses;                // [rows]
  void* dlogits = nullptr;      // [rows, columns], same type
  float scale = 1;
  const PassVariables* variables = nullptr;  // if set, variables->gradient_scale instead of scale
  std::int64_t rows, columns;
  std::int64_t valid_columns;  // the vocabulary without padding
  DType dtype;
};
void cross_entropy(const Stream& stream, const CrossEntropy& args);

}  // namespace tessera::kernels
