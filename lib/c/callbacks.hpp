// SPDX-License-Identifier: Apache-2.0
// Functions of the caller's that a network calls: layers and losses.
#pragma once

#include <vector>

#include "tessera/engine/learner.hpp"
#include "tessera/nn/given_layer.hpp"
#include "tessera/tessera.h"

namespace tessera::c {

/// What a caller's function finds at its pointers when the network is on a GPU.
enum class CallbackMemory { host_copies, device };
inline CallbackMemory callback_memory(const tessera_network_options& options) {
  return options.callbacks_on_device != 0 ? CallbackMemory::device : CallbackMemory::host_copies;
}

/// Errors: invalid_argument for descriptions that cannot be.
std::vector<nn::GivenLayer> given_layers(const tessera_network_options& options);

engine::Learner::LossFunction given_loss(tessera_loss_function function, void* user,
                                         CallbackMemory memory);

}  // namespace tessera::c
