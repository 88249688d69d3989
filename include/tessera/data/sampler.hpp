// SPDX-License-Identifier: Apache-2.0
// Which sequence comes when: an order that depends on the seed and the epoch and nothing else.
#pragma once

#include <cstdint>

#include "tessera/base/random.hpp"
#include "tessera/data/sequences.hpp"

namespace tessera::data {

/// A pseudo-random permutation of [0, size) with each element computed on its own: a Feistel
/// network over the next power of four, walked until the value falls inside.
/// Source: Black & Rogaway 2002, "Ciphers with arbitrary finite domains".
class Permutation {
 public:
  Permutation(std::int64_t size, std::uint64_t seed, std::uint64_t stream);
  std::int64_t size() const { return size_; }
  std::int64_t operator()(std::int64_t index) const;

 private:
  std::int64_t size_;
  int half_bits_;
  RandomStream random_;
};

/// Sample s is sequence order(epoch)[s mod size] of epoch s / size: an epoch visits every sequence
/// once, and a batch that an epoch cannot fill goes on in the next. Nothing to save but s.
class Sampler {
 public:
  struct Position {
    std::int64_t epoch = 0;
    std::int64_t sequence = 0;
  };

  /// shuffle == false: 0, 1, 2 … in every epoch.
  Sampler(std::int64_t sequences, std::uint64_t seed, bool shuffle = true);
  std::int64_t size() const { return size_; }
  Position at(std::int64_t sample) const;

 private:
  std::int64_t size_;
  std::uint64_t seed_;
  bool shuffle_;
};

/// How the rows of a global batch are dealt: micro-batch j of data rank r has rows
/// [(j * ranks + r) * micro, … + micro).
struct BatchShape {
  std::int64_t micro = 1;         ///< rows of one micro-batch on one rank
  std::int64_t ranks = 1;         ///< data ranks
  std::int64_t accumulation = 1;  ///< micro-batches of a step

  std::int64_t global() const { return micro * ranks * accumulation; }
  std::int64_t first_row(std::int64_t micro_batch, std::int64_t rank) const {
    return (micro_batch * ranks + rank) * micro;
  }
};

/// Fills batches from sequences in the sampler's order.
class Batches {
 public:
  Batches(Sequences sequences, std::uint64_t seed, bool shuffle = true);

  const Sequences& sequences() const { return sequences_; }
  const Sampler& sampler() const { return sampler_; }
  /// Samples [first, first + rows) to `inputs` and `targets`, each [rows, length]. At any sample,
  /// by any rank. For a training step: first = samples done + shape.first_row(j, r).
  void fill(std::int64_t first, std::int64_t rows, Token* inputs, Token* targets) const;

 private:
  Sequences sequences_;
  Sampler sampler_;
};

}  // namespace tessera::data
