// SPDX-License-Identifier: Apache-2.0
// What sharing a long sequence costs: attention, forward and backward, by all ranks of a sequence
// axis, in turns with one rank that has their threads.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tessera/autograd/ring_attention.hpp"
#include "tessera/autograd/ulysses_attention.hpp"
#include "tessera/base/cpu_features.hpp"
#include "tessera/base/random.hpp"
#include "tessera/comm/runtime.hpp"

#include "support/bench.hpp"
#include "support/ranks.hpp"

namespace tessera::bench {
namespace {

using namespace autograd;  // NOLINT(google-build-using-namespace): what is measured

constexpr std::int64_t kPositions = 8192, kHeads = 4, kWidth = 64 * kHeads;

Tensor noise(std::int64_t tokens, std::int64_t columns) {
  const Tensor values(Shape{1, tokens, columns}, DType::fp32);
  const RandomStream random(1, 2);
  for (std::int64_t i = 0; i < values.numel(); ++i)
    values.as<float>()[i] = random.uniform(static_cast<std::uint64_t>(i)) - 0.5f;
  return values.to(DType::bf16);
}

/// Attention of some tokens, forward and backward.
class Pass {
 public:
  explicit Pass(std::int64_t tokens)
      : qkv_(noise(tokens, 3 * kWidth)), dy_(noise(tokens, kWidth)) {}

  void run(const std::function<Value(Tape&, const Value&)>& attention) const {
    Tape tape(Recording::on);
    const Value y = attention(tape, Value::leaf(qkv_));
    tape.backward(y, dy_);
  }

 private:
  Tensor qkv_, dy_;
};

std::shared_ptr<const SequenceShards> shards_of(Communicator& group, bool zigzag) {
  SequenceShards shards{&group, {}};
  const int ranks = group.size(), pieces = zigzag ? 2 * ranks : ranks;
  for (int rank = 0; rank < ranks; ++rank) {
    shards.tokens.push_back({balanced_share(kPositions, pieces, rank)});
    if (zigzag)
      shards.tokens.back().push_back(balanced_share(kPositions, pieces, pieces - 1 - rank));
  }
  return std::make_shared<const SequenceShards>(std::move(shards));
}

void measure(Program& program, Communicator& world) {
  const SelfAttention options{.heads = kHeads, .scale = 0.125f, .dropout = {}};
  const auto whole = shards_of(world, false), halves = shards_of(world, true);
  const Pass alone(kPositions), shared(whole->count(static_cast<std::size_t>(world.rank())));
  Case passes;
  passes.name = "attention of 8192 tokens, 4 heads of 64, bf16";
  passes.work = static_cast<double>(kPositions);
  passes.unit = "token";
  const std::string ranks = std::to_string(world.size());
  passes.variants.push_back({.name = "1 rank x " + ranks + " threads", .run = [&] {
                               set_threads(world.size());
                               if (world.rank() == 0)
                                 alone.run([&](Tape& tape, const Value& qkv) {
                                   return self_attention(tape, qkv, options);
                                 });
                               world.barrier();
                             }});
  passes.variants.push_back({.name = "ulysses " + ranks, .run = [&] {
                               set_threads(1);
                               shared.run([&](Tape& tape, const Value& qkv) {
                                 return ulysses_attention(tape, qkv, options, whole);
                               });
                             }});
  passes.variants.push_back({.name = "ring " + ranks, .run = [&] {
                               set_threads(1);
                               shared.run([&](Tape& tape, const Value& qkv) {
                                 return ring_attention(tape, qkv, options, halves);
                               });
                             }});
  const CaseResult result = program.measure(passes, 1);
  if (result.variants.empty()) return;
  for (const std::string kind : {"ulysses", "ring"})
    program.value("speed of " + kind + " over one rank", result[kind + " " + ranks].speed_ratio);
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  using namespace tessera::bench;
  return run_on_ranks("autograd_sequence_attention", argc, argv, measure);
}
