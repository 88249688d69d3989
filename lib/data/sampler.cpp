// SPDX-License-Identifier: Apache-2.0
// The order of samples.
#include "tessera/data/sampler.hpp"

#include <utility>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

namespace tessera::data {
namespace {

// Six rounds: each half is mixed into the other three times.
constexpr int kRounds = 6;
// Keeps these numbers apart from those of dropout and initialisation under the same seed.
constexpr std::uint64_t kSamplerStream = 0x73616d706c6572;  // "sampler"

}  // namespace

Permutation::Permutation(std::int64_t size, std::uint64_t seed, std::uint64_t stream)
    : size_(size), half_bits_(1), random_(seed, stream) {
  TESSERA_CHECK(size >= 1, Code::invalid_argument,
                fmt::format("a permutation of {} elements", size));
  while (half_bits_ < 31 && (std::int64_t{1} << (2 * half_bits_)) < size) ++half_bits_;
}

std::int64_t Permutation::operator()(std::int64_t index) const {
  TESSERA_CHECK(index >= 0 && index < size_, Code::invalid_argument,
                fmt::format("element {} of a permutation of {}", index, size_));
  const std::uint32_t mask = (std::uint32_t{1} << half_bits_) - 1;
  auto value = static_cast<std::uint64_t>(index);
  do {
    auto left = static_cast<std::uint32_t>(value >> half_bits_);
    auto right = static_cast<std::uint32_t>(value) & mask;
    for (std::uint32_t round = 0; round < kRounds; ++round) {
      const std::uint64_t block = (std::uint64_t{round} << 32) | right;
      left = std::exchange(right, left ^ (random_.block(block)[0] & mask));
    }
    value = (std::uint64_t{left} << half_bits_) | right;
  } while (value >= static_cast<std::uint64_t>(size_));
  return static_cast<std::int64_t>(value);
}

Sampler::Sampler(std::int64_t sequences, std::uint64_t seed, bool shuffle)
    : size_(sequences), seed_(seed), shuffle_(shuffle) {
  TESSERA_CHECK(sequences >= 1, Code::invalid_argument, "there are no sequences to sample from");
}

Sampler::Position Sampler::at(std::int64_t sample) const {
  TESSERA_CHECK(sample >= 0, Code::invalid_argument, fmt::format("sample {}", sample));
  const std::int64_t epoch = sample / size_;
  const std::int64_t index = sample % size_;
  if (!shuffle_) return {epoch, index};
  const std::uint64_t stream = mix(kSamplerStream, static_cast<std::uint64_t>(epoch));
  return {epoch, Permutation(size_, seed_, stream)(index)};
}

Batches::Batches(Sequences sequences, std::uint64_t seed, bool shuffle)
    : sequences_(std::move(sequences)), sampler_(sequences_.size(), seed, shuffle) {}

void Batches::fill(std::int64_t first, std::int64_t rows, Token* inputs, Token* targets) const {
  const std::int64_t length = sequences_.length();
  for (std::int64_t row = 0; row < rows; ++row)
    sequences_.read(sampler_.at(first + row).sequence, inputs + row * length,
                    targets + row * length);
}

}  // namespace tessera::data
