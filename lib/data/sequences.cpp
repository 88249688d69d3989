// SPDX-License-Identifier: Apache-2.0
// Cutting a corpus into sequences.
#include "tessera/data/sequences.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

namespace tessera::data {

Sequences::Sequences(std::shared_ptr<const Corpus> corpus, std::int64_t length,
                     const std::string& name)
    : corpus_(std::move(corpus)), name_(name), length_(length) {
  TESSERA_CHECK(length >= 1, Code::invalid_config,
                fmt::format("sequence_length is {}, expected at least 1", length));
  size_ = std::max<std::int64_t>(0, (corpus_->tokens() - 1) / length);
  TESSERA_CHECK(size_ >= 1, Code::invalid_config,
                fmt::format("{} has {} tokens, but one sequence of {} needs {}: give more data or "
                            "a smaller sequence_length",
                            name, corpus_->tokens(), length, length + 1));
}

Sequences::Sequences(const Sequences& whole, std::int64_t first, std::int64_t size)
    : Sequences(whole) {
  first_ = whole.first_ + first;
  size_ = size;
}

void Sequences::read(std::int64_t sequence, Token* inputs, Token* targets) const {
  TESSERA_CHECK(sequence >= 0 && sequence < size_, Code::invalid_argument,
                fmt::format("sequence {} of {} in {}", sequence, size_, name_));
  const std::int64_t begin = (first_ + sequence) * length_;
  corpus_->read(begin, length_, inputs);
  std::memcpy(targets, inputs + 1, static_cast<std::size_t>(length_ - 1) * sizeof(Token));
  corpus_->read(begin + length_, 1, targets + length_ - 1);
}

std::pair<Sequences, Sequences> Sequences::split(double fraction) const {
  TESSERA_CHECK(fraction >= 0 && fraction < 1, Code::invalid_config,
                fmt::format("validation holds back {} of the data, expected a fraction from 0 to "
                            "below 1",
                            fraction));
  std::int64_t held = 0;
  if (fraction > 0)
    held = std::max<std::int64_t>(1, std::llround(fraction * static_cast<double>(size_)));
  TESSERA_CHECK(held < size_, Code::invalid_config,
                fmt::format("validation {} holds back {} of the {} sequences of {} tokens in {}: "
                            "nothing is left to train on",
                            fraction, held, size_, length_, name_));
  return {Sequences(*this, 0, size_ - held), Sequences(*this, size_ - held, held)};
}

}  // namespace tessera::data
