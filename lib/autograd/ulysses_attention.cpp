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

/// The elements of a token that belong to each rank's heads: one interval for each part of a row
/// (q, k and v), in which heads lie one after the other.
using Columns = std::vector<std::vector<Interval>>;

/// Moves [batch, own tokens, parts of all heads] to [batch, all tokens, parts of own heads] and
/// back. What travels between two ranks is [batch, tokens of one, parts of heads of the other].
class HeadExchange {
 public:
  HeadExchange(std::shared_ptr<const SequenceShards> shards, Columns columns)
      : shards_(std::move(shards)), columns_(std::move(columns)) {
    for (std::size_t rank = 0; rank < columns_.size(); ++rank) all_ += row_of(rank);
  }

  Tensor to_heads(const Stream& stream, const Tensor& x) const {
    const std::int64_t batch = x.size(0);
    const Tensor sent = travelling(batch * tokens(own()) * all_, x);
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
    const Tensor received = travelling(batch * tokens(own()) * all_, x);
    Tensor y(Shape{batch, tokens(own()), all_}, x.dtype(), x.device());
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
  /// Elements of a token, all parts together, that belong to a rank's heads.
  std::int64_t row_of(std::size_t rank) const {
    std::int64_t row = 0;
    for (const Interval& part : columns_[rank]) row += part.size();
    return row;
  }
  std::int64_t own_row() const { return row_of(own()); }

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
    for (std::size_t rank = 0; rank < columns_.size(); ++rank)
      counts.push_back(batch * tokens(own()) * row_of(rank));
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

  /// The copies from `whole` [batch, own tokens, parts of all heads] to what travels.
  template <typename Visit>
  void for_tokens_side(const Tensor& whole, const Tensor& travels, Visit visit) const {
    std::int64_t begin = 0;
    const std::int64_t rows = whole.size(0) * tokens(own());
    for (std::size_t rank = 0; rank < columns_.size(); ++rank) {
      const std::int64_t row = row_of(rank);
      std::int64_t place = begin;
      for (const Interval& part : columns_[rank]) {
        visit(CopyBlocks{.source = at(whole, part.begin),
                         .target = at(travels, place),
                         .blocks = 1,
                         .rows = rows,
                         .count = part.size(),
                         .source_strides = {0, all_},
                         .target_strides = {0, row},
                         .dtype = whole.dtype()});
        place += part.size();
      }
      begin += rows * row;
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
  Columns columns_;       // by rank
  std::int64_t all_ = 0;  // elements of a token, of all heads
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

/// Of qkv; the first part alone are the queries' columns, as of the result.
Columns columns_of_heads(const SelfAttention& options, std::int64_t head_dim, int ranks) {
  const std::int64_t keys = options.key_heads(), group = options.heads / keys;
  Columns columns;
  for (int rank = 0; rank < ranks; ++rank) {
    const Interval own = balanced_share(keys, ranks, rank);
    const auto part = [&](std::int64_t first, std::int64_t each) {
      return Interval{(first + own.begin * each) * head_dim, (first + own.end * each) * head_dim};
    };
    columns.push_back({part(0, group), part(options.heads, 1), part(options.heads + keys, 1)});
  }
  return columns;
}

Columns queries_of(Columns columns) {
  for (std::vector<Interval>& parts : columns) parts.resize(1);
  return columns;
}

}  // namespace

Value ulysses_attention(Tape& tape, const Value& qkv, const SelfAttention& options,
                        const std::shared_ptr<const SequenceShards>& shards) {
  const Communicator& group = *shards->group;
  const Shape& shape = qkv.shape();
  const auto rank = static_cast<std::size_t>(group.rank());
  const std::int64_t head_dim = head_dim_of(shape, options);
  TESSERA_CHECK(
      head_dim > 0 && options.key_heads() >= group.size() && shape[1] == shards->count(rank),
      Code::invalid_argument,
      fmt::format("attention with {} heads, {} of keys and values, over a sequence axis of {} "
                  "cannot take {} for {} of {} tokens",
                  options.heads, options.key_heads(), group.size(), shape.to_string(),
                  shards->count(rank), shards->positions()));
  const Interval own = balanced_share(options.key_heads(), group.size(), group.rank());
  const std::int64_t queries_of_key = options.heads / options.key_heads();
  SelfAttention mine = options;
  mine.all_heads = options.all_heads > 0 ? options.all_heads : options.heads;
  mine.head_offset += own.begin * queries_of_key;
  mine.heads = own.size() * queries_of_key;
  mine.kv_heads = own.size();
  const Columns columns = columns_of_heads(options, head_dim, group.size());
  const Value whole =
      self_attention(tape, tokens_to_heads(tape, qkv, HeadExchange(shards, columns)), mine);
  return heads_to_tokens(tape, whole, HeadExchange(shards, queries_of(columns)));
}

}  // namespace tessera::autograd
