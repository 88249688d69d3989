// SPDX-License-Identifier: Apache-2.0
// ZB-H1: 1F1B whose weight gradients wait, rank r's by r micro-batches, and fill the cool-down.
#include <algorithm>

#include "parallel/pipeline/order.hpp"

namespace tessera::parallel::pipeline {

RankOrder zero_bubble_order(const PipelineShape& shape, int rank) {
  RankOrder order;
  const int count = shape.micro_batches;
  const int ahead = std::min(shape.ranks - 1 - rank, count);
  for (int i = 0; i < ahead; ++i) order.push_back({ActionKind::forward, i, rank});
  for (int i = 0; i < count + rank; ++i) {
    if (i + ahead < count) order.push_back({ActionKind::forward, i + ahead, rank});
    if (i < count) order.push_back({ActionKind::backward_input, i, rank});
    if (i >= rank) order.push_back({ActionKind::backward_weight, i - rank, rank});
  }
  return order;
}

}  // namespace tessera::parallel::pipeline
