// SPDX-License-Identifier: Apache-2.0
#include "tessera/autograd/ulysses_attention.hpp"

#include <utility>
#include <vector>

#include <fmt/format.h>

#include "tessera/autograd/profiler.hpp"
#include "tessera/base/error.hpp"
#include "tessera/comm/communicator.hpp"
#include "tessera/kernels/copy_blocks.hpp"

#include "autograd/attention_arguments.hpp"

namespace tessera::autograd {
namespace {

using kernels::CopyBlocks;

/// Moves [batch, own tokens, parts of all heads] to [batch, all tokens, parts of own heads], where
/// a part (q, k or v) has its heads one after the other; and back. What travels between two ranks
/// is [batch, tokens of one, parts of heads of the other].
class HeadExchange {
 public:
  HeadExchange(std::shared_ptr<const SequenceShards> shards, std::int64_t heads,
               std::int64_t head_dim, std::int64_t parts)
      : shards_(std::move(shards)), width_(heads * head_dim), parts_(parts) {
    for (int rank = 0; rank < group().size(); ++rank) {
      const Interval share = balanced_share(heads, group().size(), rank);
      columns_.push_back({share.begin * head_dim, share.end * head_dim});
    }
  }

  Tensor to_heads(const Stream& stream, const Tensor& x) const {
    const std::int64_t batch = x.size(0);
    const Tensor sent = travelling(batch * tokens(own()) * parts_ * width_, x);
    const Tensor received = travelling(batch * shards_->positions() * own_row(), x);
    Tensor y(Shape{batch, shards_->positions(), own_row()}, x.dtype(), x.device());
    for_tokens_side(x, sent, [&](const CopyBlocks& copy) { kernels::copy_blocks(stream, copy); });
    exchange(stream, sent, tokens_counts(batch), received, heads_counts(batch));
    for_heads_side(y, received,
                   [&](const CopyBlocks& copy) { kernels::copy_blocks(stream, swapped(copy)); });
    return y;
  }

  Tensor to_tokens(const Stream& stream, const Tensor& x) const {
    const std::int64_t batch = x.size(0);
    const Tensor sent = travelling(x.numel(), x);
    const Tensor received = travelling(batch * tokens(own()) * parts_ * width_, x);
    Tensor y(Shape{batch, tokens(own()), parts_ * width_}, x.dtype(), x.device());
    for_heads_side(x, sent, [&](const CopyBlocks& copy) { kernels::copy_blocks(stream, copy); });
    exchange(stream, sent, heads_counts(batch), received, tokens_counts(batch));
    for_tokens_side(y, received,
                    [&](const CopyBlocks& copy) { kernels::copy_blocks(stream, swapped(copy)); });
    return y;
  }

 private:
  Communicator& group() const { return *shards_->group; }
  std::size_t own() const { return static_cast<std::size_t>(group().rank()); }
  std::int64_t tokens(std::size_t rank) const { return shards_->count(rank); }
  std::int64_t own_row() const { return parts_ * columns_[own()].size(); }

  static Tensor travelling(std::int64_t elements, const Tensor& like) {
    return Tensor(Shape{elements}, like.dtype(), like.device(), Purpose::workspace);
  }
  static CopyBlocks swapped(CopyBlocks copy) {
    const void* const source = copy.source;
    copy.source = copy.target;
    copy.target = const_cast<void*>(source);
    std::swap(copy.source_strides, copy.target_strides);
    return copy;
  }

  /// Elements that travel to or from each rank: own tokens of their heads, their tokens of own
  /// heads.
  std::vector<std::int64_t> tokens_counts(std::int64_t batch) const {
    std::vector<std::int64_t> counts;
    for (const Interval& columns : columns_)
      counts.push_back(batch * tokens(own()) * parts_ * columns.size());
    return counts;
  }
  std::vector<std::int64_t> heads_counts(std::int64_t batch) const {
    std::vector<std::int64_t> counts;
    for (std::size_t rank = 0; rank < columns_.size(); ++rank)
      counts.push_back(batch * tokens(rank) * own_row());
    return counts;
  }

  void exchange(const Stream& stream, const Tensor& sent, const std::vector<std::int64_t>& send,
                const Tensor& received, const std::vector<std::int64_t>& receive) const {
    const ProfileScope profile("sequence all-to-all");
    group().all_to_all_v(sent.data(), send, received.data(), receive, sent.dtype(), stream).wait();
  }

  /// The copies from `whole` [batch, own tokens, parts, width] to what travels.
  template <typename Visit>
  void for_tokens_side(const Tensor& whole, const Tensor& travels, Visit visit) const {
    std::int64_t begin = 0;
    const std::int64_t rows = whole.size(0) * tokens(own());
    for (const Interval& columns : columns_) {
      visit(CopyBlocks{.source = at(whole, columns.begin),
                       .target = at(travels, begin),
                       .blocks = rows,
                       .rows = parts_,
                       .count = columns.size(),
                       .source_strides = {parts_ * width_, width_},
                       .target_strides = {parts_ * columns.size(), columns.size()},
                       .dtype = whole.dtype()});
      begin += rows * parts_ * columns.size();
    }
  }
  /// The copies from `whole` [batch, all tokens, own row] to what travels.
  template <typename Visit>
  void for_heads_side(const Tensor& whole, const Tensor& travels, Visit visit) const {
    const std::int64_t batch = whole.size(0), row = own_row();
    std::int64_t begin = 0;
    for (std::size_t rank = 0; rank < columns_.size(); ++rank) {
      std::int64_t place = begin;
      for (const Interval& piece : shards_->tokens[rank]) {
        visit(CopyBlocks{.source = at(whole, piece.begin * row),
                         .target = at(travels, place),
                         .blocks = batch,
                         .rows = 1,
                         .count = piece.size() * row,
                         .source_strides = {whole.size(1) * row, 0},
                         .target_strides = {tokens(rank) * row, 0},
                         .dtype = whole.dtype()});
        place += piece.size() * row;
      }
      begin += batch * tokens(rank) * row;
    }
  }

  std::shared_ptr<const SequenceShards> shards_;
  std::int64_t width_, parts_;
  std::vector<Interval> columns_;  // of a part, by rank
};

Value tokens_to_heads(Tape& tape, const Value& x, const HeadExchange& exchange) {
  Value y = tape.result(exchange.to_heads(tape.stream(), x.data()), x.requires_gradient());
  if (!y.requires_gradient()) return y;
  tape.record(
      {.name = "tokens_to_heads",
       .output = y.slot(),
       .backward_input = [exchange, slot = x.slot(), stream = tape.stream()](
                             Tensor& dy) { slot->add(stream, exchange.to_tokens(stream, dy)); },
       .backward_weight = {}});
  return y;
}

Value heads_to_tokens(Tape& tape, const Value& x, const HeadExchange& exchange) {
  Value y = tape.result(exchange.to_tokens(tape.stream(), x.data()), x.requires_gradient());
  if (!y.requires_gradient()) return y;
  tape.record(
      {.name = "heads_to_tokens",
       .output = y.slot(),
       .backward_input = [exchange, slot = x.slot(), stream = tape.stream()](
                             Tensor& dy) { slot->add(stream, exchange.to_heads(stream, dy)); },
       .backward_weight = {}});
  return y;
}

}  // namespace

Value ulysses_attention(Tape& tape, const Value& qkv, const SelfAttention& options,
                        const std::shared_ptr<const SequenceShards>& shards) {
  const Communicator& group = *shards->group;
  const Shape& shape = qkv.shape();
  const auto rank = static_cast<std::size_t>(group.rank());
  TESSERA_CHECK(shape.rank() == 3 && options.heads >= group.size() &&
                    shape[2] % (3 * options.heads) == 0 && shape[1] == shards->count(rank),
                Code::invalid_argument,
                fmt::format("attention with {} heads over a sequence axis of {} cannot take {} for "
                            "{} of {} tokens",
                            options.heads, group.size(), shape.to_string(), shards->count(rank),
                            shards->positions()));
  const std::int64_t head_dim = shape[2] / (3 * options.heads);
  const Interval own = balanced_share(options.heads, group.size(), group.rank());
  SelfAttention mine = options;
  mine.all_heads = options.all_heads > 0 ? options.all_heads : options.heads;
  mine.head_offset += own.begin;
  mine.heads = own.size();
  const Value whole = self_attention(
      tape, tokens_to_heads(tape, qkv, HeadExchange(shards, options.heads, head_dim, 3)), mine);
  return heads_to_tokens(tape, whole, HeadExchange(shards, options.heads, head_dim, 1));
}

}  // namespace tessera::autograd
