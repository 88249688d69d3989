// SPDX-License-Identifier: Apache-2.0
// The CPU's attention.
#pragma once

#include "tessera/kernels/attention.hpp"

namespace tessera::kernels::cpu {

/// Arguments are checked, batch and queries positive. FLOPs are counted by the caller.
void attention_forward(const AttentionForward& args);
void attention_backward(const AttentionBackward& args);

}  // namespace tessera::kernels::cpu
