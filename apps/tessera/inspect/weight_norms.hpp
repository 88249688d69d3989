// SPDX-License-Identifier: Apache-2.0
// Root mean squares of a model's weights, layer by layer and by kind of parameter.
#pragma once

#include <map>
#include <string>

#include "apps/tessera/inspect/contents.hpp"

namespace tessera::app {

struct WeightNorms {
  struct Kind {
    int dimensions = 0;
    std::map<std::int64_t, double> by_layer;
  };
  std::map<std::string, Kind> layers;    // "mlp.c_fc.weight"
  std::map<std::string, double> others;  // of parameters outside of layers, by name
};

/// Reads all parameters.
WeightNorms measure_norms(const Contents& contents);

/// transformer.h.3.mlp.c_fc.weight -> layer 3 and "mlp.c_fc.weight"; layer -1 and the whole name
/// where no part of the name is a number.
std::pair<std::int64_t, std::string> split_layer(const std::string& name);

}  // namespace tessera::app
