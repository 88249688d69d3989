// SPDX-License-Identifier: Apache-2.0
// Layers of a network that the program computes itself.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tessera/autograd/given_layer.hpp"
#include "tessera/nn/model.hpp"

namespace tessera::nn {

/// Takes the place of a layer of model_type mlp, with its activation and normalisation.
struct GivenLayer {
  int index = 0;                ///< from 0: from layer_sizes[index] numbers to the next
  std::int64_t parameters = 0;  ///< trainable numbers of its own, "layers.<index>.own"
  float deviation = 0;          ///< they start normally distributed around 0; 0: as zeros
  autograd::LayerFunctions functions{};
};

/// make_network() with such layers, the same on every rank. Errors besides its own:
/// invalid_argument for layers that cannot be, not_supported for other types than mlp.
std::unique_ptr<Network> make_network(const std::string& config_json, const ModelOptions& options,
                                      bool strict, std::vector<GivenLayer> layers);

}  // namespace tessera::nn
