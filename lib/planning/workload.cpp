// SPDX-License-Identifier: Apache-2.0
#include "tessera/planning/workload.hpp"

namespace tessera::planning {

std::int64_t TransformerShape::layer_parameters() const {
  const std::int64_t weights =
      2 * hidden * (query_width() + key_width()) + projections() * hidden * inner;
  const std::int64_t biases = query_width() + 2 * key_width() + inner + 2 * hidden;
  return weights + (biased ? biases : 0) + 2 * norm_parameters();
}

std::int64_t TransformerShape::embedding_parameters() const {
  return (vocabulary + positions) * hidden;
}

std::int64_t TransformerShape::parameters() const {
  return layers * layer_parameters() + embedding_parameters() + norm_parameters() +
         (tied ? 0 : vocabulary * hidden);
}

double TransformerShape::layer_flops(double rows, double length) const {
  const std::int64_t weights =
      hidden * (2 * query_width() + 2 * key_width() + projections() * inner);
  return 2 * rows * length * static_cast<double>(weights) +
         4 * rows * length * length * static_cast<double>(query_width());
}

double TransformerShape::head_flops(double rows, double length) const {
  return 2 * rows * length * static_cast<double>(hidden) * static_cast<double>(vocabulary);
}

double Workload::model_flops() const {
  const auto rows = static_cast<double>(batch), tokens = static_cast<double>(length);
  return 3 * (static_cast<double>(model.layers) * model.layer_flops(rows, tokens) +
              model.head_flops(rows, tokens));
}

}  // namespace tessera::planning
