// SPDX-License-Identifier: Apache-2.0
// Filling a cache of attention's keys and values.
#pragma once

#include <cstdint>

#include "tessera/base/dtype.hpp"
#include "tessera/device/stream.hpp"

namespace tessera::kernels {

/// Copies keys and values of `count` new positions of each row behind `length` cached ones. Those
/// of position t of row r begin at element (r * count + t) * stride, wherever a fused product left
/// them. Errors: invalid_argument when they do not fit.
struct KvAppend {
  const void* keys;
  const void* values;
  void* cached_keys;    // [rows, capacity, width]
  void* cached_values;  // [rows, capacity, width]
  std::int64_t rows, count, width, stride, capacity, length;
  DType dtype;
};
void kv_append(const Stream& stream, const KvAppend& args);

}  // namespace tessera::kernels
