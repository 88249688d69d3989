// SPDX-License-Identifier: Apache-2.0
// tessera::RandomStream on a GPU: the same numbers at the same indices.
#pragma once

#include <cstdint>

namespace tessera::kernels::cuda {

struct PhiloxWords {
  std::uint32_t values[4];
};

/// Philox4x32-10 of block `index` of RandomStream(seed, stream): the words of elements 4 index …
/// 4 index + 3.
__device__ __forceinline__ PhiloxWords philox_block(std::uint64_t seed, std::uint64_t stream,
                                                    std::uint64_t index) {
  auto key0 = static_cast<std::uint32_t>(seed), key1 = static_cast<std::uint32_t>(seed >> 32);
  auto c0 = static_cast<std::uint32_t>(index), c1 = static_cast<std::uint32_t>(index >> 32);
  auto c2 = static_cast<std::uint32_t>(stream), c3 = static_cast<std::uint32_t>(stream >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * c0, b = std::uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<std::uint32_t>(b >> 32) ^ c1 ^ key0;
    c2 = static_cast<std::uint32_t>(a >> 32) ^ c3 ^ key1;
    c1 = static_cast<std::uint32_t>(b);
    c3 = static_cast<std::uint32_t>(a);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

/// tessera::mix.
__device__ __forceinline__ std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  std::uint64_t z = a * 0x9E3779B97F4A7C15u + b + 0x632BE59BD9B4E019u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

/// RandomStream::uniform of a word: [0, 1), 24 bits.
__device__ __forceinline__ float uniform(std::uint32_t word) {
  return static_cast<float>(word >> 8) * 0x1p-24f;
}

}  // namespace tessera::kernels::cuda
