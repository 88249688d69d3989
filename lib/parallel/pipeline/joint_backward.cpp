// SPDX-License-Identifier: Apache-2.0
// Orders with one backward: they differ in how many forwards run ahead of the first backward.
#include <algorithm>

#include "parallel/pipeline/order.hpp"

namespace tessera::parallel::pipeline {
namespace {

struct Item {
  int micro_batch, chunk;
};

// All micro-batches through all chunks: a group of them through chunk 0, the same through chunk 1,
// …
std::vector<Item> forward_items(const PipelineShape& shape, int groups) {
  std::vector<Item> items;
  int first = 0;
  for (int group = 0; group < groups; ++group) {
    const int size = (shape.micro_batches - first + groups - group - 1) / (groups - group);
    for (int chunk = 0; chunk < shape.chunks; ++chunk)
      for (int i = 0; i < size; ++i) items.push_back({first + i, chunk});
    first += size;
  }
  return items;
}

// `ahead` forwards, then forward and backward in turn, then the backwards that are left. Backwards
// follow the items too, from the last chunk to the first.
RankOrder alternate(const PipelineShape& shape, int rank, const std::vector<Item>& items,
                    int ahead) {
  RankOrder order;
  const auto forward = [&](const Item& item) {
    order.push_back({ActionKind::forward, item.micro_batch, shape.stage_of(rank, item.chunk)});
  };
  const auto count = items.size();
  const std::size_t start = std::min(static_cast<std::size_t>(ahead), count);
  for (std::size_t k = 0; k < start; ++k) forward(items[k]);
  for (std::size_t k = 0; k < count; ++k) {
    if (k + start < count) forward(items[k + start]);
    const int chunk = shape.chunks - 1 - items[k].chunk;
    order.push_back({ActionKind::backward, items[k].micro_batch, shape.stage_of(rank, chunk)});
  }
  return order;
}

}  // namespace

RankOrder gpipe_order(const PipelineShape& shape, int rank) {
  return alternate(shape, rank, forward_items(shape, 1), shape.micro_batches);
}

RankOrder one_forward_one_backward_order(const PipelineShape& shape, int rank) {
  return alternate(shape, rank, forward_items(shape, 1), shape.ranks - 1 - rank);
}

RankOrder interleaved_order(const PipelineShape& shape, int rank) {
  const int groups = std::max(1, shape.micro_batches / shape.ranks);
  const int largest = (shape.micro_batches + groups - 1) / groups;
  const int ahead = 2 * (shape.ranks - 1 - rank) + (shape.chunks - 1) * largest;
  return alternate(shape, rank, forward_items(shape, groups), ahead);
}

}  // namespace tessera::parallel::pipeline
