// SPDX-License-Identifier: Apache-2.0
#include "tessera/autograd/token_shards.hpp"

#include <utility>
#include <vector>

#include <fmt/format.h>

#include "tessera/autograd/profiler.hpp"
#include "tessera/base/error.hpp"

#include "autograd/token_exchange.hpp"

namespace tessera::autograd {
namespace {

std::vector<std::int64_t> elements_by_rank(const Communicator& group, const Shape& whole) {
  const std::int64_t width = whole[-1], tokens = whole.numel() / width;
  std::vector<std::int64_t> counts;
  for (int rank = 0; rank < group.size(); ++rank)
    counts.push_back(balanced_share(tokens, group.size(), rank).size() * width);
  return counts;
}

}  // namespace

Tensor gather_shards(const Stream& stream, const Tensor& own, const Shape& whole,
                     Communicator& group) {
  const ProfileScope profile("tensor all-gather");
  Tensor all(whole, own.dtype(), own.device());
  group.all_gather_v(own.data(), all.data(), elements_by_rank(group, whole), own.dtype(), stream)
      .wait();
  return all;
}

Tensor sum_to_shards(const Stream& stream, const Tensor& partial, Communicator& group) {
  const ProfileScope profile("tensor reduce-scatter");
  const std::int64_t width = partial.shape()[-1], tokens = partial.numel() / width;
  Tensor own(Shape{token_shard(group, tokens).size(), width}, partial.dtype(), partial.device());
  group
      .reduce_scatter_v(partial.data(), own.data(), elements_by_rank(group, partial.shape()),
                        partial.dtype(), Reduction::sum, stream)
      .wait();
  return own;
}

Interval token_shard(const Communicator& group, std::int64_t tokens) {
  return balanced_share(tokens, group.size(), group.rank());
}

Value gather_tokens(Tape& tape, const Value& x, const Shape& whole, Communicator& group) {
  const std::int64_t tokens = whole.numel() / whole[-1];
  TESSERA_CHECK(
      x.shape() == Shape({token_shard(group, tokens).size(), whole[-1]}), Code::invalid_argument,
      fmt::format("{} of a rank's {} tokens of {} shared by {} ranks", x.shape().to_string(),
                  token_shard(group, tokens).size(), whole.to_string(), group.size()));
  Value y =
      tape.result(gather_shards(tape.stream(), x.data(), whole, group), x.requires_gradient());
  if (!tape.recording()) return y;
  y.set_rebuild([&group, whole, saved = x.save(), stream = tape.stream()] {
    return gather_shards(stream, saved.get(), whole, group);
  });
  if (y.requires_gradient())
    tape.record(
        {.name = "gather_tokens",
         .output = y.slot(),
         .backward_input = [&group, slot = x.slot(), stream = tape.stream()](
                               Tensor& dy) { slot->add(stream, sum_to_shards(stream, dy, group)); },
         .backward_weight = {}});
  return y;
}

Value scatter_tokens(Tape& tape, Value partial, Communicator& group) {
  const auto slot = partial.slot();
  const Shape whole = partial.shape();
  Value y = tape.result(sum_to_shards(tape.stream(), partial.data(), group), slot != nullptr);
  if (!y.requires_gradient()) return y;
  tape.record({.name = "scatter_tokens",
               .output = y.slot(),
               .backward_input =
                   [&group, whole, slot, stream = tape.stream()](Tensor& dy) {
                     slot->add(stream, gather_shards(stream, dy, whole, group));
                   },
               .backward_weight = {}});
  return y;
}

}  // namespace tessera::autograd
