// SPDX-License-Identifier: Apache-2.0
// Attention over shared sequences, by a ring and by Ulysses, against attention over whole rows.
#include <random>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tessera/autograd/ring_attention.hpp"
#include "tessera/autograd/ulysses_attention.hpp"
#include "tessera/base/cpu_features.hpp"
#include "tessera/comm/runtime.hpp"
#include "tessera/device/cuda.hpp"
#include "tessera/kernels/gemm.hpp"

#include "support/expect_error.hpp"
#include "support/test_device.hpp"

namespace tessera::autograd {
namespace {

using Attention = Value (*)(Tape&, const Value&, const SelfAttention&,
                            const std::shared_ptr<const SequenceShards>&);
using Tokens = std::vector<std::vector<Interval>>;

constexpr std::int64_t kBatch = 3, kHeads = 5, kDim = 4, kWidth = kHeads * kDim;

/// One piece of a row for each rank.
Tokens contiguous(std::int64_t positions, int ranks) {
  Tokens tokens;
  for (int rank = 0; rank < ranks; ++rank)
    tokens.push_back({balanced_share(positions, ranks, rank)});
  return tokens;
}
/// Two, from the beginning and from the end.
Tokens zigzag(std::int64_t positions, int ranks) {
  Tokens tokens;
  for (int rank = 0; rank < ranks; ++rank)
    tokens.push_back({balanced_share(positions, 2 * ranks, rank),
                      balanced_share(positions, 2 * ranks, 2 * ranks - 1 - rank)});
  return tokens;
}

std::vector<float> noise(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

/// What attention makes of qkv, and of dy the gradient of qkv.
struct Outcome {
  std::vector<float> y, dqkv;
};

class SequenceAttentionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    set_threads(1);
    const Device device = testing::test_device();
    if (!device.is_cpu()) {
      world().open_device(device);
      stream_ = current_stream(device);
    }
  }
  Communicator& world() { return runtime_.world(); }

  /// Own tokens of whole rows [batch, positions, columns].
  static std::vector<float> take(const std::vector<float>& whole, const std::vector<Interval>& own,
                                 std::int64_t positions, std::int64_t columns) {
    std::vector<float> part;
    for (std::int64_t b = 0; b < kBatch; ++b)
      for (const Interval& piece : own)
        part.insert(part.end(), whole.begin() + (b * positions + piece.begin) * columns,
                    whole.begin() + (b * positions + piece.end) * columns);
    return part;
  }

  Tensor tensor(std::vector<float> values, std::int64_t columns, DType dtype) const {
    const auto tokens = static_cast<std::int64_t>(values.size()) / kBatch / columns;
    const Tensor host = Tensor::borrow(values.data(), {kBatch, tokens, columns}, DType::fp32);
    return host.to(dtype).clone().on(stream_);
  }
  std::vector<float> values(const Tensor& tensor) const {
    const Tensor host = tensor.on_host(stream_).to(DType::fp32);
    return {host.as<float>(), host.as<float>() + host.numel()};
  }

  template <typename Body>
  Outcome run(const std::vector<float>& qkv, const std::vector<float>& dy, DType dtype,
              Body attention) {
    Tape tape(Recording::on, nullptr, stream_);
    const Value input = Value::leaf(tensor(qkv, 3 * kWidth, dtype));
    const Value y = attention(tape, input);
    Outcome outcome;
    outcome.y = values(y.data());
    tape.backward(y, tensor(dy, kWidth, dtype));
    outcome.dqkv = values(input.gradient());
    return outcome;
  }

  static void expect_near(const std::vector<float>& found, const std::vector<float>& expected,
                          float tolerance) {
    ASSERT_EQ(found.size(), expected.size());
    float largest = 0;
    for (const float value : expected) largest = std::max(largest, std::abs(value));
    for (std::size_t i = 0; i < found.size(); ++i)
      ASSERT_NEAR(found[i], expected[i], tolerance * largest) << "element " << i;
  }

  void expect_whole_rows(Attention attention, const Tokens& tokens, DType dtype, float dropout) {
    const auto shards = std::make_shared<const SequenceShards>(SequenceShards{&world(), tokens});
    const std::int64_t positions = shards->positions();
    const std::vector<float> qkv = noise(kBatch * positions * 3 * kWidth, 1);
    const std::vector<float> dy = noise(kBatch * positions * kWidth, 2);
    // Heads 2 to 6 of 9, as on a tensor axis.
    const SelfAttention options{.heads = kHeads,
                                .scale = 0.5f,
                                .dropout = {.probability = dropout, .seed = 3, .stream = 4},
                                .batch_offset = 5,
                                .head_offset = 2,
                                .all_heads = 9};
    const auto& own = tokens[static_cast<std::size_t>(world().rank())];
    const Outcome whole = run(qkv, dy, dtype, [&](Tape& tape, const Value& x) {
      return self_attention(tape, x, options);
    });
    const std::int64_t flops_before = kernels::flop_count();
    const Outcome shared =
        run(take(qkv, own, positions, 3 * kWidth), take(dy, own, positions, kWidth), dtype,
            [&](Tape& tape, const Value& x) { return attention(tape, x, options, shards); });
    const float tolerance = dtype == DType::fp32 ? 1e-5f : 2e-2f;
    expect_near(shared.y, take(whole.y, own, positions, kWidth), tolerance);
    expect_near(shared.dqkv, take(whole.dqkv, own, positions, 3 * kWidth), tolerance);
    EXPECT_EQ(world().all_reduce_scalar(kernels::flop_count() - flops_before, Reduction::sum),
              12 * kBatch * positions * positions * kWidth);
  }

  Runtime runtime_;
  Stream stream_;
};

TEST_F(SequenceAttentionTest, FindsWhatWholeRowsGive) {
  const int ranks = world().size();
  for (const std::int64_t positions : {40, 37})
    for (const float dropout : {0.0f, 0.3f})
      for (const DType dtype : {DType::fp32, DType::bf16}) {
        SCOPED_TRACE(
            fmt::format("{} positions, dropout {}, {}", positions, dropout, to_string(dtype)));
        expect_whole_rows(ulysses_attention, contiguous(positions, ranks), dtype, dropout);
        expect_whole_rows(ulysses_attention, zigzag(positions, ranks), dtype, dropout);
        expect_whole_rows(ring_attention, zigzag(positions, ranks), dtype, dropout);
        expect_whole_rows(ring_attention, contiguous(positions, ranks), dtype, dropout);
      }
}

TEST_F(SequenceAttentionTest, TokensOfOthersAreRefused) {
  const auto shards = std::make_shared<const SequenceShards>(
      SequenceShards{&world(), contiguous(4 * world().size(), world().size())});
  Tape tape(Recording::off, nullptr, stream_);
  const Value qkv(tensor(noise(kBatch * 3 * 3 * kWidth, 1), 3 * kWidth, DType::fp32));
  for (const Attention attention : {&ring_attention, &ulysses_attention})
    test::expect_error(Code::invalid_argument, {"for 4 of"}, [&] {
      attention(tape, qkv, {.heads = kHeads, .scale = 1, .dropout = {}}, shards);
    });
}

}  // namespace
}  // namespace tessera::autograd
