// SPDX-License-Identifier: Apache-2.0
#include "apps/tessera/inspect/weight_norms.hpp"

#include <algorithm>
#include <charconv>

#include "apps/tessera/inspect/statistics.hpp"

namespace tessera::app {

std::pair<std::int64_t, std::string> split_layer(const std::string& name) {
  for (std::size_t begin = 0; begin < name.size();) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    std::int64_t layer = 0;
    const auto [last, error] = std::from_chars(name.data() + begin, name.data() + end, layer);
    if (error == std::errc() && last == name.data() + end && end < name.size())
      return {layer, name.substr(end + 1)};
    begin = end + 1;
  }
  return {-1, name};
}

WeightNorms measure_norms(const Contents& contents) {
  WeightNorms norms;
  for (const TensorEntry& entry : contents.tensors()) {
    if (entry.group != "parameters") continue;
    const double rms = measure(contents, entry).rms;
    const auto [layer, kind] = split_layer(entry.name);
    if (layer < 0) {
      norms.others[entry.name] = rms;
      continue;
    }
    norms.layers[kind].dimensions = entry.shape.rank();
    norms.layers[kind].by_layer[layer] = rms;
  }
  return norms;
}

}  // namespace tessera::app
