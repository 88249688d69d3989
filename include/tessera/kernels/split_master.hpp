// SPDX-License-Identifier: Apache-2.0
// fp32 master weights split into a bf16 half and the 16 bits that rounding took away.
#pragma once

#include <cstdint>

#include "tessera/base/dtype.hpp"
#include "tessera/device/stream.hpp"

namespace tessera::kernels {

/// The pair is a bijection of all 2^32 patterns: high = (bits + 0x8000) >> 16 modulo 2^16 (round
/// half up: to even, ties could not be told apart), low = bits & 0xffff; back, one comes off high
/// where low >= 0x8000. Every number, infinity and NaN comes back exactly. The half alone is the
/// bf16 weight; for three kinds of values it is not what rounding to nearest even gives: exact ties
/// go away from zero; NaNs whose payload is in the low 16 bits alone look like infinity (a value
/// beyond the bf16 range does as well); and the NaNs 0x7fff8000 … 0x7fffffff look like -0, their
/// negatives like +0. A processor makes none of the last kind from bf16 or default NaNs, and the
/// optimizer looks for NaN in gradients, not in the halves.
void split(const Stream& stream, const float* master, bf16* high, std::uint16_t* low,
           std::int64_t count);
void join(const Stream& stream, const bf16* high, const std::uint16_t* low, float* master,
          std::int64_t count);

}  // namespace tessera::kernels
