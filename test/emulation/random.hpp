// SPDX-License-Identifier: Apache-2.0
// A small generator for the emulation's choices of order.
#pragma once

#include <cstdint>

namespace tessera::emulation {

/// SplitMix64 (Steele, Lea, Flood 2014).
class Choices {
 public:
  explicit Choices(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  /// 0 … n − 1; the small bias does not matter here.
  std::uint64_t below(std::uint64_t n) { return next() % n; }

 private:
  std::uint64_t state_;
};

}  // namespace tessera::emulation
