// SPDX-License-Identifier: Apache-2.0
// Losses of a network's outputs, as sums over a micro-batch.
#pragma once

#include <functional>

#include "tessera/autograd/head_loss.hpp"
#include "tessera/autograd/tape.hpp"
#include "tessera/kernels/element_loss.hpp"

namespace tessera::autograd {

// On the device of the tape's stream. Known at once, with recording too. The gradient of the
// objective is gradient_scale * sum.

/// prediction [...] and targets [...] fp32 of the same number of elements. `delta` is Huber's.
/// Keeps the gradient until the backward pass.
Loss element_loss(Tape& tape, const Value& prediction, const Tensor& targets,
                  kernels::ElementLossKind kind, float delta, float gradient_scale);

/// Softmax cross-entropy: logits [..., classes], targets [...] int32 (negative: none).
Loss cross_entropy_loss(Tape& tape, const Value& logits, const Tensor& targets,
                        float gradient_scale);

/// A loss that somebody else computes: `function` takes the outputs in fp32, writes their gradient
/// (zeros before) and returns the sum. On a GPU both lie there; the stream has been waited for, and
/// the gradient has to be there when the function returns.
Loss given_loss(
    Tape& tape, const Value& outputs,
    const std::function<double(const Tensor& outputs, const Tensor& gradients)>& function,
    float gradient_scale);

}  // namespace tessera::autograd
