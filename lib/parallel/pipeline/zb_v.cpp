// SPDX-License-Identifier: Apache-2.0
// ZB-V: rank r holds the r-th stage from either end, so activations go down the ranks and back up.
#include <algorithm>
#include <array>
#include <utility>

#include "parallel/pipeline/order.hpp"

namespace tessera::parallel::pipeline {
namespace {

// Hands out the micro-batches of each kind of work in each chunk in ascending order.
class Work {
 public:
  Work(const PipelineShape& shape, int rank) : shape_(shape), rank_(rank) {}

  void forward(int chunk) { add(ActionKind::forward, chunk, forwards_); }
  void input(int chunk) { add(ActionKind::backward_input, chunk, inputs_); }
  void weight(int chunk) { add(ActionKind::backward_weight, chunk, weights_); }
  void backward(int chunk) {
    input(chunk);
    weight(chunk);
  }
  void pending_weights(int chunk) {
    while (weights_[at(chunk)] < inputs_[at(chunk)]) weight(chunk);
  }
  int forwards(int chunk) const { return forwards_[at(chunk)]; }
  RankOrder take() { return std::move(order_); }

 private:
  using Counts = std::array<int, 2>;
  static std::size_t at(int chunk) { return static_cast<std::size_t>(chunk); }

  // The order is made for enough micro-batches; work of those that do not exist is left out.
  void add(ActionKind kind, int chunk, Counts& counts) {
    const int micro_batch = counts[at(chunk)]++;
    if (micro_batch < shape_.micro_batches)
      order_.push_back({kind, micro_batch, shape_.stage_of(rank_, chunk)});
  }

  const PipelineShape& shape_;
  int rank_;
  Counts forwards_{}, inputs_{}, weights_{};
  RankOrder order_;
};

}  // namespace

RankOrder zb_v_order(const PipelineShape& shape, int rank) {
  const int p = shape.ranks;
  const int count = std::max(2 * p - 1, shape.micro_batches);
  Work work(shape, rank);
  const auto second_chunk = [&] {
    work.forward(1);
    work.backward(1);
  };
  for (int i = 0; i < 2 * (p - rank) - 1; ++i) work.forward(0);
  for (int i = 0; i < rank; ++i) {
    work.forward(1);
    work.forward(0);
  }
  for (int i = 0; i < p - rank; ++i) second_chunk();
  while (work.forwards(1) < work.forwards(0) || work.forwards(0) < count) {
    if (work.forwards(0) < count) work.forward(0);
    work.backward(0);
    second_chunk();
  }
  for (int i = 0; i < rank; ++i) {
    work.input(0);
    work.input(1);
  }
  for (int i = 0; i < p - rank; ++i) work.backward(0);
  work.pending_weights(1);
  work.pending_weights(0);
  return work.take();
}

}  // namespace tessera::parallel::pipeline
