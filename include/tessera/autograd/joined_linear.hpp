// SPDX-License-Identifier: Apache-2.0
// Several linear maps of the same input, with their results in one tensor.
#pragma once

#include <cstdint>
#include <vector>

#include "tessera/autograd/tape.hpp"
#include "tessera/autograd/weight.hpp"
#include "tessera/base/interval.hpp"

namespace tessera {
class Communicator;
}

namespace tessera::autograd {

/// y = x W^T + b with weight [outputs, inputs]; bias [outputs] or nullptr.
struct LinearPart {
  Weight* weight;
  Weight* bias = nullptr;
  /// The ranks `holders` of WeightHolders have the same, and each finds a part of its gradient.
  bool held_by_several = false;
};

/// Neighbouring ranks of a group that have the same weights; this one is among them.
struct WeightHolders {
  Communicator* group = nullptr;  // nullptr: nobody else
  Interval ranks{};
};

/// How the parts' results lie.
enum class Joined : std::uint8_t {
  columns,  ///< of each token one after the other: [..., sum of outputs]
  planes,   ///< each by itself, one after the other: [parts, ..., outputs], all of them equal
};

/// x [..., inputs] -> the results of all parts. Saves x. The gradients of parts that are held by
/// several are added up over their holders, in fp32 and in the order of ranks: then collective over
/// the whole group in the backward pass, whether or not a rank shares anything. Errors:
/// invalid_argument where shapes do not fit.
Value joined_linear(Tape& tape, const Value& x, const std::vector<LinearPart>& parts, Joined joined,
                    const WeightHolders& holders = {});

}  // namespace tessera::autograd
