// SPDX-License-Identifier: Apache-2.0
// What tests may ask of the emulated cuDNN.
#pragma once

#include <cstdint>

namespace tessera::emulation {

/// Plans that were enqueued so far, and that were made.
std::int64_t cudnn_executions();
std::int64_t cudnn_plans();

/// From now on the heuristic finds no engine for any graph.
void refuse_cudnn_graphs(bool refuse);
/// Plans made from now on ask for so many bytes more than they use.
void inflate_cudnn_workspace(std::int64_t bytes);

}  // namespace tessera::emulation
