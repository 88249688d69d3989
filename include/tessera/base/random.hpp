// SPDX-License-Identifier: Apache-2.0
// Counter-based random numbers: the value at an index depends on the key and the index alone, so
// nothing changes with the number of ranks or threads. Source: Salmon et al. 2011, "Parallel random
// numbers: as easy as 1, 2, 3".
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

namespace tessera {

/// Philox4x32 with 10 rounds.
std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                    std::array<std::uint32_t, 2> key);

/// A stream of random numbers addressed by index. Element i is word i % 4 of the block with counter
/// {i / 4 low, i / 4 high, stream low, stream high} under the key {seed low, seed high}.
class RandomStream {
 public:
  RandomStream(std::uint64_t seed, std::uint64_t stream) : seed_(seed), stream_(stream) {}

  std::uint64_t seed() const { return seed_; }
  std::uint64_t stream() const { return stream_; }

  std::array<std::uint32_t, 4> block(std::uint64_t index) const {
    return philox({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                   static_cast<std::uint32_t>(stream_), static_cast<std::uint32_t>(stream_ >> 32)},
                  {static_cast<std::uint32_t>(seed_), static_cast<std::uint32_t>(seed_ >> 32)});
  }
  std::uint32_t bits(std::uint64_t index) const { return block(index / 4)[index % 4]; }
  /// Uniform in [0, 1), 24 bits.
  float uniform(std::uint64_t index) const {
    return static_cast<float>(bits(index) >> 8) * 0x1p-24f;
  }
  /// Standard normal by Box–Muller; element i uses words of block i / 2.
  float normal(std::uint64_t index) const;

 private:
  std::uint64_t seed_;
  std::uint64_t stream_;
};

/// Mixes two words into one (SplitMix64's finaliser), to derive a stream number from (step, layer,
/// …).
std::uint64_t mix(std::uint64_t a, std::uint64_t b);

}  // namespace tessera
