// SPDX-License-Identifier: Apache-2.0
// Names of activation functions in GPT-2's configuration.
#pragma once

#include <string>

#include "tessera/kernels/activation.hpp"

namespace tessera::nn {

/// Throws invalid_config for an unknown name.
kernels::Activation parse_activation(const std::string& name);

}  // namespace tessera::nn
