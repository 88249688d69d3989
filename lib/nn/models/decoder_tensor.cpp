// SPDX-License-Identifier: Apache-2.0
// A decoder on a tensor axis: where a rank's columns and rows begin and end, and with token shards
// what its own tokens are in between.
#include <algorithm>
#include <utility>

#include "tessera/autograd/linear.hpp"
#include "tessera/autograd/reduce_gradient.hpp"
#include "tessera/autograd/token_shards.hpp"

#include "nn/models/decoder_pass.hpp"

namespace tessera::nn {
namespace {

/// Of the elements that lie in `runs`, one after the other, those of `part`.
std::vector<Interval> part_of_runs(const std::vector<Interval>& runs, const Interval& part) {
  std::vector<Interval> found;
  std::int64_t before = 0;
  for (const Interval& run : runs) {
    const std::int64_t begin = std::max(part.begin - before, std::int64_t{0});
    const std::int64_t end = std::min(part.end - before, run.size());
    if (begin < end) found.push_back({run.begin + begin, run.begin + end});
    before += run.size();
  }
  return found;
}

}  // namespace

void Decoder::share_tokens(Pass& pass, std::int64_t rows) const {
  const std::int64_t positions = token_count(options_.sequence, pass.positions);
  const std::int64_t width = sizes_.width, tokens = rows * positions;
  const Interval own = autograd::token_shard(*options_.tensor.group, tokens);
  const auto runs = pass.runs ? *pass.runs : std::vector<Interval>{{0, tokens * width}};
  pass.runs = std::make_shared<const std::vector<Interval>>(
      part_of_runs(runs, {own.begin * width, own.end * width}));
  pass.all_tokens = Shape{rows, positions, width};
}

autograd::VocabularyPart Decoder::vocabulary_part() const {
  if (options_.tensor.size == 1) return {};
  return {{shares_.vocabulary.begin, sizes_.vocabulary}, options_.tensor.group, has_token_shards()};
}

autograd::Value Decoder::column_input(autograd::Tape& tape, const Pass& pass,
                                      const autograd::Value& x) const {
  if (options_.tensor.size == 1) return x;
  Communicator& group = *options_.tensor.group;
  if (has_token_shards()) return autograd::gather_tokens(tape, x, pass.all_tokens, group);
  autograd::reduce_gradient(tape, x, group);
  return x;
}

autograd::Value Decoder::row_output(autograd::Tape& tape, const autograd::Value& x,
                                    autograd::Weight& weight, autograd::Weight* bias,
                                    autograd::WeightLayout layout) {
  if (options_.tensor.size == 1) return autograd::linear(tape, x, weight, bias, layout);
  Communicator& group = *options_.tensor.group;
  if (has_token_shards())
    return autograd::row_linear_to_shards(tape, x, weight, bias, group, layout);
  return autograd::row_linear(tape, x, weight, bias, group, layout);
}

Communicator* Decoder::group_of_norms() const {
  return has_token_shards() ? options_.tensor.group : nullptr;
}

// With token shards the inputs are shares already.
autograd::KeptInputs Decoder::kept_inputs() const {
  const bool shares =
      options_.partition_activations && options_.tensor.size > 1 && !has_token_shards();
  return {shares ? options_.tensor.group : nullptr, options_.host_activations};
}

}  // namespace tessera::nn
