// SPDX-License-Identifier: Apache-2.0
// Checksums of logical tensors that do not depend on who holds which part.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "tessera/base/dtype.hpp"

namespace tessera::checkpoint {

/// Sum modulo 2^64 over elements i in [begin, begin + count) of
///   z = (N + i * 0x9E3779B97F4A7C15) xor w_i
///   z = (z xor z >> 30) * 0xBF58476D1CE4E5B9
///   z = (z xor z >> 27) * 0x94D049BB133111EB
///   z = z xor z >> 31
/// where N is FNV-1a (64 bits) of `name` and w_i the element's bits, zero-extended. The parts of a
/// tensor add up to the whole in any order; changing one element always changes the sum.
/// `data` points to element `begin`. Vectorised, runs on the calling thread.
std::uint64_t checksum_range(std::string_view name, std::int64_t begin, const void* data,
                             DType dtype, std::int64_t count);

/// The name that goes into a dataset's checksum: what follows "parameters/", else the whole path.
/// So the sum of the checksums under /parameters is summary.json's weights_checksum.
std::string_view checksum_name(std::string_view path);

/// 16 hexadecimal digits.
std::string format_checksum(std::uint64_t checksum);

}  // namespace tessera::checkpoint
