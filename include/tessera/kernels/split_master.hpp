// SPDX-License-Identifier: Apache-2.0
// fp32 master weights split into a bf16 half and the 16 bits that rounding took away.
#pragma once

#include <cstdint>

#include "tessera/base/dtype.hpp"
#include "tessera/device/stream.hpp"

namespace tessera::kernels {

/// The pair is a bijection: high = (bits + 0x8000) >> 16 (round half up), low = bits & 0xffff. NaN
/// payloads that the carry would turn into a number stay as they are; see doc/numerics.md.
void split(const Stream& stream, const float* master, bf16* high, std::uint16_t* low,
           std::int64_t count);
void join(const Stream& stream, const bf16* high, const std::uint16_t* low, float* master,
          std::int64_t count);

}  // namespace tessera::kernels
