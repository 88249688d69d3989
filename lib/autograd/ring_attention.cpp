// SPDX-License-Identifier: Apache-2.0
#include "tessera/autograd/ring_attention.hpp"

#include <utility>
#include <vector>

#include <fmt/format.h>

#include "tessera/autograd/profiler.hpp"
#include "tessera/base/error.hpp"
#include "tessera/comm/communicator.hpp"
#include "tessera/kernels/attention_merge.hpp"
#include "tessera/kernels/copy_blocks.hpp"
#include "tessera/kernels/elementwise.hpp"
#include "tessera/kernels/gemm.hpp"

#include "autograd/attention_arguments.hpp"

namespace tessera::autograd {
namespace {

enum Tag : int { keys_and_values, their_gradients };

/// Some neighbouring positions of every row.
struct Piece {
  Interval positions;
  std::int64_t first;  // tokens of the rank's earlier pieces, in one row
  std::int64_t size() const { return positions.size(); }
};

/// What travels to the next rank of the ring, and what comes from the one before.
struct Hop {
  Tensor sent, received;
  Work send, receive;

  void wait() {
    send.wait();
    receive.wait();
  }
};

/// One call, with everything that its closures need. Arrays of a rank's tokens lie here piece by
/// piece, each [batch, positions of the piece, columns].
class Ring {
 public:
  Ring(const Stream& stream, const Shape& qkv, const SelfAttention& options,
       std::shared_ptr<const SequenceShards> shards)
      : stream_(stream),
        options_(options),
        shards_(std::move(shards)),
        batch_(qkv[0]),
        width_(options.heads * head_dim_of(qkv, options)),
        kv_width_(options.key_heads() * head_dim_of(qkv, options)),
        positions_(shards_->positions()) {}

  /// y, and the log-sum-exps of each piece's queries one after the other.
  std::pair<Tensor, Tensor> forward(const Tensor& qkv) const;
  Tensor backward(const Tensor& qkv, const Tensor& y, const Tensor& lse, const Tensor& dy) const;

 private:
  Communicator& group() const { return *shards_->group; }
  int size() const { return group().size(); }
  /// The rank whose keys and values are here after so many hops.
  int owner(int hops) const { return (group().rank() - hops % size() + size()) % size(); }
  std::int64_t tokens(int rank) const {
    return batch_ * shards_->count(static_cast<std::size_t>(rank));
  }
  std::int64_t own_tokens() const { return tokens(group().rank()); }
  std::vector<Piece> pieces(int rank) const;

  Tensor scratch(std::int64_t elements, DType dtype) const {
    return Tensor(Shape{elements}, dtype, stream_.device(), Purpose::workspace);
  }
  Tensor zeros(std::int64_t elements) const {
    return Tensor::zeros(Shape{elements}, DType::fp32, stream_, Purpose::workspace);
  }
  Tensor to_pieces(const Tensor& rows, std::int64_t column, std::int64_t columns) const;
  void from_pieces(const Tensor& pieces, const Tensor& rows, std::int64_t column,
                   std::int64_t columns) const;
  Hop pass_on(const Tensor& tensor, int receives_from_hops, Tag tag) const;

  template <typename Visit>
  void for_visible(int key_owner, Visit visit) const;
  kernels::AttentionForward call(const Tensor& q, const Piece& queries, const Tensor& kv,
                                 const Piece& keys) const;
  void attend(const Tensor& q, const Tensor& kv, int key_owner, const Tensor& sum,
              const Tensor& lse) const;
  void differentiate(const Tensor& q, const Tensor& kv, int key_owner, const Tensor& y,
                     const Tensor& lse, const Tensor& dy, const Tensor& dq,
                     const Tensor& dkv) const;
  void count_masked(std::int64_t flops_of_pair) const;

  Stream stream_;
  SelfAttention options_;
  std::shared_ptr<const SequenceShards> shards_;
  std::int64_t batch_, width_, kv_width_, positions_;
};

std::vector<Piece> Ring::pieces(int rank) const {
  std::vector<Piece> list;
  std::int64_t first = 0;
  for (const Interval& positions : shards_->tokens[static_cast<std::size_t>(rank)]) {
    list.push_back({positions, first});
    first += positions.size();
  }
  return list;
}

/// Columns [column, column + columns) of own rows [batch, tokens, all columns].
Tensor Ring::to_pieces(const Tensor& rows, std::int64_t column, std::int64_t columns) const {
  Tensor pieces_of = scratch(own_tokens() * columns, rows.dtype());
  const std::int64_t all = rows.size(2);
  for (const Piece& piece : pieces(group().rank()))
    kernels::copy_blocks(stream_, {.source = at(rows, piece.first * all + column),
                                   .target = at(pieces_of, batch_ * piece.first * columns),
                                   .blocks = batch_,
                                   .rows = piece.size(),
                                   .count = columns,
                                   .source_strides = {rows.size(1) * all, all},
                                   .target_strides = {piece.size() * columns, columns},
                                   .dtype = rows.dtype()});
  return pieces_of;
}

void Ring::from_pieces(const Tensor& pieces_of, const Tensor& rows, std::int64_t column,
                       std::int64_t columns) const {
  const std::int64_t all = rows.size(2);
  for (const Piece& piece : pieces(group().rank()))
    kernels::copy_blocks(stream_, {.source = at(pieces_of, batch_ * piece.first * columns),
                                   .target = at(rows, piece.first * all + column),
                                   .blocks = batch_,
                                   .rows = piece.size(),
                                   .count = columns,
                                   .source_strides = {piece.size() * columns, columns},
                                   .target_strides = {rows.size(1) * all, all},
                                   .dtype = rows.dtype()});
}

/// Sends `tensor` on, and receives that of the rank which is `receives_from_hops` before this one.
Hop Ring::pass_on(const Tensor& tensor, int receives_from_hops, Tag tag) const {
  Hop hop{
      tensor, scratch(tokens(owner(receives_from_hops)) * 2 * kv_width_, tensor.dtype()), {}, {}};
  group().group_begin();
  hop.send = group().send(tensor.data(), tensor.numel(), tensor.dtype(),
                          (group().rank() + 1) % size(), tag, stream_);
  hop.receive = group().receive(hop.received.data(), hop.received.numel(), tensor.dtype(), owner(1),
                                tag, stream_);
  group().group_end();
  return hop;
}

/// Own pieces of queries with the pieces of keys that they see: all of a piece before, and of the
/// same piece what lies before each query.
template <typename Visit>
void Ring::for_visible(int key_owner, Visit visit) const {
  for (const Piece& queries : pieces(group().rank()))
    for (const Piece& keys : pieces(key_owner))
      if (keys.positions.begin <= queries.positions.begin) visit(queries, keys);
}

kernels::AttentionForward Ring::call(const Tensor& q, const Piece& queries, const Tensor& kv,
                                     const Piece& keys) const {
  kernels::AttentionForward args = arguments_of(options_);
  args.q = at(q, batch_ * queries.first * width_);
  args.k = at(kv, batch_ * keys.first * 2 * kv_width_);
  args.v = at(kv, batch_ * keys.first * 2 * kv_width_ + kv_width_);
  args.batch = batch_;
  args.queries = queries.size();
  args.keys = keys.size();
  args.head_dim = width_ / options_.heads;
  args.q_row_stride = args.y_row_stride = width_;
  args.k_row_stride = args.v_row_stride = 2 * kv_width_;
  args.q_batch_stride = args.y_batch_stride = queries.size() * width_;
  args.k_batch_stride = args.v_batch_stride = keys.size() * 2 * kv_width_;
  args.causal = queries.positions == keys.positions;
  args.dtype = q.dtype();
  args.query_offset = queries.positions.begin;
  args.key_offset = keys.positions.begin;
  args.all_positions = positions_;
  return args;
}

/// The keys of one rank, for all own queries.
void Ring::attend(const Tensor& q, const Tensor& kv, int key_owner, const Tensor& sum,
                  const Tensor& lse) const {
  const ProfileScope profile("attention forward");
  for_visible(key_owner, [&](const Piece& queries, const Piece& keys) {
    const Tensor part = scratch(batch_ * queries.size() * width_, q.dtype());
    const Tensor part_lse = scratch(batch_ * queries.size() * options_.heads, DType::fp32);
    kernels::AttentionForward args = call(q, queries, kv, keys);
    args.y = part.data();
    args.lse = part_lse.as<float>();
    kernels::attention_forward(stream_, args);
    const bool first = key_owner == group().rank() && keys.first == 0;
    kernels::attention_merge(stream_,
                             {.part = part.data(),
                              .part_lse = part_lse.as<float>(),
                              .sum = sum.as<float>() + batch_ * queries.first * width_,
                              .lse = lse.as<float>() + batch_ * queries.first * options_.heads,
                              .first = first,
                              .batch = batch_,
                              .queries = queries.size(),
                              .heads = options_.heads,
                              .head_dim = width_ / options_.heads,
                              .dtype = q.dtype()});
  });
}

// flop_count() goes as if nothing were masked; pieces behind a query were not even visited.
void Ring::count_masked(std::int64_t flops_of_pair) const {
  std::int64_t visited = 0;
  for (int rank = 0; rank < size(); ++rank)
    for_visible(rank, [&](const Piece& queries, const Piece& keys) {
      visited += queries.size() * keys.size();
    });
  const std::int64_t pairs = own_tokens() * positions_ - batch_ * visited;
  kernels::add_flops(flops_of_pair * width_ * pairs);
}

std::pair<Tensor, Tensor> Ring::forward(const Tensor& qkv) const {
  const Tensor q = to_pieces(qkv, 0, width_);
  Tensor kv = to_pieces(qkv, width_, 2 * kv_width_);
  const Tensor sum = scratch(q.numel(), DType::fp32);
  const Tensor lse(Shape{own_tokens() * options_.heads}, DType::fp32, stream_.device());
  for (int hops = 0; hops < size(); ++hops) {
    Hop next;
    if (hops + 1 < size()) next = pass_on(kv, hops + 1, keys_and_values);
    attend(q, kv, owner(hops), sum, lse);
    next.wait();
    kv = next.received;
  }
  count_masked(4);
  const Tensor y(Shape{batch_, qkv.size(1), width_}, qkv.dtype(), qkv.device());
  from_pieces(sum.to(y.dtype(), stream_), y, 0, width_);
  return {y, lse};
}

/// Adds to dq and dkv, both fp32, what comes of own queries and the keys of one rank. With y and
/// lse of all keys, the probabilities of some keys and their gradients are those that they have
/// among all.
void Ring::differentiate(const Tensor& q, const Tensor& kv, int key_owner, const Tensor& y,
                         const Tensor& lse, const Tensor& dy, const Tensor& dq,
                         const Tensor& dkv) const {
  const ProfileScope profile("attention backward");
  for_visible(key_owner, [&](const Piece& queries, const Piece& keys) {
    const std::int64_t first_query = batch_ * queries.first * width_;
    const std::int64_t first_key = batch_ * keys.first * 2 * kv_width_;
    const Tensor part_q = scratch(batch_ * queries.size() * width_, q.dtype());
    const Tensor part_kv = scratch(batch_ * keys.size() * 2 * kv_width_, q.dtype());
    kernels::AttentionForward args = call(q, queries, kv, keys);
    args.y = at(y, first_query);
    args.lse = lse.as<float>() + batch_ * queries.first * options_.heads;
    kernels::attention_backward(stream_, {.forward = args,
                                          .dy = at(dy, first_query),
                                          .dq = part_q.data(),
                                          .dk = part_kv.data(),
                                          .dv = at(part_kv, kv_width_)});
    kernels::accumulate(stream_, part_q.data(), q.dtype(), 1, dq.as<float>() + first_query,
                        DType::fp32, part_q.numel());
    kernels::accumulate(stream_, part_kv.data(), q.dtype(), 1, dkv.as<float>() + first_key,
                        DType::fp32, part_kv.numel());
  });
}

// Gradients of keys and values follow one hop behind them: who has added its share sends them on
// while it computes with the next ones, and the last rank of the ring sends them home.
Tensor Ring::backward(const Tensor& qkv, const Tensor& y_rows, const Tensor& lse,
                      const Tensor& dy_rows) const {
  const Tensor q = to_pieces(qkv, 0, width_), y = to_pieces(y_rows, 0, width_);
  const Tensor dy = to_pieces(dy_rows, 0, width_);
  Tensor kv = to_pieces(qkv, width_, 2 * kv_width_);
  const Tensor dq = zeros(q.numel()), own_dkv = zeros(kv.numel());
  Hop gradients;
  for (int hops = 0; hops < size(); ++hops) {
    Hop next;
    if (hops + 1 < size()) next = pass_on(kv, hops + 1, keys_and_values);
    const Tensor dkv = hops == 0 ? own_dkv : zeros(kv.numel());
    differentiate(q, kv, owner(hops), y, lse, dy, dq, dkv);
    next.wait();
    kv = next.received;
    if (hops == 0) continue;
    gradients.wait();
    if (hops > 1)
      kernels::accumulate(stream_, gradients.received.data(), qkv.dtype(), 1, dkv.data(),
                          DType::fp32, dkv.numel());
    gradients = pass_on(dkv.to(qkv.dtype(), stream_), hops + 1, their_gradients);
  }
  if (size() > 1) {
    gradients.wait();
    kernels::accumulate(stream_, gradients.received.data(), qkv.dtype(), 1, own_dkv.data(),
                        DType::fp32, own_dkv.numel());
  }
  count_masked(8);
  const Tensor dqkv(qkv.shape(), qkv.dtype(), qkv.device());
  from_pieces(dq.to(qkv.dtype(), stream_), dqkv, 0, width_);
  from_pieces(own_dkv.to(qkv.dtype(), stream_), dqkv, width_, 2 * kv_width_);
  return dqkv;
}

}  // namespace

Value ring_attention(Tape& tape, const Value& qkv, const SelfAttention& options,
                     const std::shared_ptr<const SequenceShards>& shards) {
  const Shape& shape = qkv.shape();
  const std::int64_t own = shards->count(static_cast<std::size_t>(shards->group->rank()));
  TESSERA_CHECK(head_dim_of(shape, options) > 0 && shape[1] == own, Code::invalid_argument,
                fmt::format("attention with {} heads, {} of keys and values, over a ring of {} "
                            "cannot take {} for {} of {} tokens",
                            options.heads, options.key_heads(), shards->group->size(),
                            shape.to_string(), own, shards->positions()));
  SelfAttention whole = options;
  if (whole.all_heads == 0) whole.all_heads = options.heads;
  const Ring ring(tape.stream(), shape, whole, shards);
  const auto [y, lse] = ring.forward(qkv.data());
  Value result = tape.result(y, qkv.requires_gradient());
  if (!result.requires_gradient()) return result;
  tape.record({.name = "ring_attention",
               .output = result.slot(),
               .backward_input =
                   [ring, data = qkv.data(), saved = y, numbers = lse, slot = qkv.slot(),
                    stream = tape.stream()](Tensor& dy) {
                     slot->add(stream, ring.backward(data, saved, numbers, dy));
                   },
               .backward_weight = {}});
  return result;
}

}  // namespace tessera::autograd
