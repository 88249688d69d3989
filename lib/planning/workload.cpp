// SPDX-License-Identifier: Apache-2.0
#include "tessera/planning/workload.hpp"

namespace tessera::planning {

std::int64_t TransformerShape::layer_parameters() const {
  const std::int64_t attention = 4 * hidden * hidden + 4 * hidden;
  const std::int64_t projections = 2 * hidden * inner + inner + hidden;
  return attention + projections + 4 * hidden;
}

std::int64_t TransformerShape::embedding_parameters() const {
  return (vocabulary + positions) * hidden;
}

std::int64_t TransformerShape::parameters() const {
  return layers * layer_parameters() + embedding_parameters() + 2 * hidden;
}

double TransformerShape::layer_flops(double rows, double length) const {
  const auto width = static_cast<double>(hidden);
  const double weights = 4 * width * width + 2 * width * static_cast<double>(inner);
  return 2 * rows * length * weights + 4 * rows * length * length * width;
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
