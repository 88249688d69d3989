// SPDX-License-Identifier: Apache-2.0
// A corpus cut into training sequences of one length.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "tessera/data/corpus.hpp"

namespace tessera::data {

/// Sequence i holds tokens [iT, iT + T] of the corpus: T inputs and T targets, so that neighbours
/// share one token; a shorter tail is dropped.
class Sequences {
 public:
  /// All of the corpus. Errors: invalid_config with the numbers if there is not even one sequence;
  /// `name` ("data.train") goes into messages.
  Sequences(std::shared_ptr<const Corpus> corpus, std::int64_t length,
            const std::string& name = "data");

  std::int64_t size() const { return size_; }
  /// T.
  std::int64_t length() const { return length_; }
  /// T inputs and the T tokens that follow each.
  void read(std::int64_t sequence, Token* inputs, Token* targets) const;

  /// The first sequences for training and the last round(fraction * size()), at least one, for
  /// validation; `second` has size 0 for fraction 0. Errors: invalid_config if fraction is not in
  /// [0, 1), or leaves nothing to train on.
  std::pair<Sequences, Sequences> split(double fraction) const;

 private:
  Sequences(const Sequences& whole, std::int64_t first, std::int64_t size);

  std::shared_ptr<const Corpus> corpus_;
  std::string name_;
  std::int64_t length_ = 0;
  std::int64_t first_ = 0;
  std::int64_t size_ = 0;
};

}  // namespace tessera::data
