// SPDX-License-Identifier: Apache-2.0
// Generation with cached keys and values agrees with running the whole sequence.
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"
#include "tessera/nn/models/gpt2.hpp"

#include "nn/strict_owner.hpp"

namespace tessera::nn {
namespace {

using autograd::Recording;
using autograd::Tape;

constexpr std::int64_t kRows = 3, kLength = 12, kVocabulary = 37;

Gpt2Config config() {
  Gpt2Config result;
  result.n_layer = 3;
  result.n_embd = 32;
  result.n_head = 4;
  result.n_positions = 16;
  result.vocab_size = kVocabulary;
  result.initializer_range = 0.3;
  return result;
}

Tensor columns(const Tensor& ids, std::int64_t begin, std::int64_t end) {
  Tensor part(Shape{ids.size(0), end - begin}, DType::int32);
  for (std::int64_t row = 0; row < ids.size(0); ++row)
    for (std::int64_t t = begin; t < end; ++t)
      part.as<std::int32_t>()[row * (end - begin) + t - begin] =
          ids.as<std::int32_t>()[row * ids.size(1) + t];
  return part;
}

void expect_last_logits(const Tensor& whole, const Tensor& last, std::int64_t position,
                        float tolerance) {
  ASSERT_EQ(last.shape(), (Shape{kRows, kVocabulary}));
  for (std::int64_t row = 0; row < kRows; ++row)
    for (std::int64_t v = 0; v < kVocabulary; ++v)
      ASSERT_NEAR(last.as<float>()[row * kVocabulary + v],
                  whole.as<float>()[(row * kLength + position) * kVocabulary + v], tolerance)
          << row << " " << v;
}

TEST(Gpt2Cache, AgreesWithTheWholeSequence) {
  for (const auto& [dtype, tolerance] :
       {std::pair{DType::fp32, 1e-4f}, {DType::bf16, 0.25f}, {DType::fp16, 0.03f}}) {
    Gpt2 model(config(), {.dtype = dtype});
    StrictOwner owner(model, dtype);
    owner.initialize(1);
    const Tensor ids = random_batch(kRows, kLength, kVocabulary, 2).ids;
    Tape tape(Recording::off, &owner);
    const Tensor whole = model.logits(tape, ids);
    KvCache cache = model.make_cache(kRows, kLength);
    std::int64_t done = 0;
    for (const std::int64_t count : {5, 1, 1, 3, 2}) {
      const Tensor last = model.forward_cached(tape, columns(ids, done, done + count), cache);
      done += count;
      EXPECT_EQ(cache.length, done);
      expect_last_logits(whole, last, done - 1, tolerance);
    }
  }
}

TEST(Gpt2Cache, RefusesWhatDoesNotFit) {
  Gpt2 model(config(), {});
  StrictOwner owner(model, DType::fp32);
  owner.initialize(1);
  Tape tape(Recording::off, &owner);
  const Tensor ids = random_batch(kRows, kLength, kVocabulary, 2).ids;
  KvCache small = model.make_cache(kRows, 4);
  EXPECT_THROW(model.forward_cached(tape, ids, small), Error);
  KvCache other = model.make_cache(1, kLength);
  EXPECT_THROW(model.forward_cached(tape, ids, other), Error);
  EXPECT_THROW(model.make_cache(1, 17), Error);
  EXPECT_THROW(model.make_cache(0, 4), Error);
}

}  // namespace
}  // namespace tessera::nn
