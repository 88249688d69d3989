// SPDX-License-Identifier: Apache-2.0
// The padding of arrays around kernels that are not ours: taken out of what they read, cleared in
// what they wrote.
#pragma once

#include <cstdint>

#include "tessera/device/stream.hpp"

namespace tessera::kernels::cuda {

/// [batch, positions, width] of 16-bit elements. Rows begin at multiples of 16 bytes and are as
/// long. Each element of `target` becomes that of `source`, or in the padding 0; without a source
/// only the padding is written.
struct PaddedArray {
  const void* source;
  std::int64_t source_row, source_batch;  // strides in elements
  void* target;
  std::int64_t target_row, target_batch;
  std::int64_t width;
};

struct AttentionPadding {
  static constexpr int kMost = 4;

  const std::int32_t* lengths;  // [batch]
  std::int64_t batch, positions;
  PaddedArray arrays[kMost];
  int count;                         // of arrays, 1 at least
  std::int32_t* in_range = nullptr;  // [batch]: gets the lengths, or the nearest possible ones
  float* lse = nullptr;              // [batch, heads, positions]: gets 0 in the padding
  std::int64_t heads = 0;
};
void attention_padding(const Stream& stream, const AttentionPadding& args);

}  // namespace tessera::kernels::cuda
