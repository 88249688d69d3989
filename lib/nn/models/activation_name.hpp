// SPDX-License-Identifier: Apache-2.0
// Names of activation functions in configurations.
#pragma once

#include <string>

#include "tessera/kernels/activation.hpp"

namespace tessera::nn {

/// The function that model.<key> names. Throws invalid_config for an unknown name.
kernels::Activation parse_activation(const std::string& key, const std::string& name);

}  // namespace tessera::nn
