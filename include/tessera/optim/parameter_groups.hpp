// SPDX-License-Identifier: Apache-2.0
// Which parameters decay.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tessera::optim {

struct ParameterGroupOptions {
  double weight_decay = 0;
  /// Tensors of one dimension (biases, norms' weights) and scalars do not decay unless this is set.
  bool decay_all = false;
  /// Parameters whose name matches any of these never decay. `*` stands for any text, dots too, `?`
  /// for one character; the pattern has to match the whole name.
  std::vector<std::string> no_decay_patterns{};
};

/// Weight decay of the parameter `name` with `dimensions` dimensions.
double weight_decay_of(const ParameterGroupOptions& options, std::string_view name, int dimensions);

/// True if `pattern` matches the whole of `name`.
bool matches_glob(std::string_view pattern, std::string_view name);

}  // namespace tessera::optim
