// SPDX-License-Identifier: Apache-2.0
// Floats that decide every case of rounding to 16 bits.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <vector>

namespace tessera {

/// Every value of the upper 16 bits, each with lower halves on, just below and just above the ties
/// of bf16 (at bit 16) and fp16 (at bit 13): normal numbers, subnormals, infinities and NaN.
inline std::vector<float> float_samples() {
  constexpr std::array<std::uint32_t, 14> kLow = {0,      1,      0x0fff, 0x1000, 0x1001,
                                                  0x2fff, 0x3000, 0x3001, 0x7fff, 0x8000,
                                                  0x8001, 0xd000, 0xf000, 0xffff};
  std::vector<float> samples;
  samples.reserve(kLow.size() << 16);
  for (std::uint32_t high = 0; high < 0x10000; ++high)
    for (const std::uint32_t low : kLow) samples.push_back(std::bit_cast<float>(high << 16 | low));
  return samples;
}

}  // namespace tessera
