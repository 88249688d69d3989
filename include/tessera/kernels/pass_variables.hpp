// SPDX-License-Identifier: Apache-2.0
// Numbers that differ between passes of the same shape.
#pragma once

#include <cstdint>

namespace tessera::kernels {

/// What operations read when they run instead of taking it as an argument, so that a recorded pass
/// (Graph) can be launched for another micro-batch. In the memory of the stream's device.
struct PassVariables {
  std::uint64_t step = 0;      // of the optimizer: mixed into the number of each dropout's stream
  std::int64_t first_row = 0;  // global index of the micro-batch's first row
  float gradient_scale = 1;    // of the loss
};

}  // namespace tessera::kernels
