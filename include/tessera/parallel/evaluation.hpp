// SPDX-License-Identifier: Apache-2.0
// Loss without training, over rows that are dealt to the ranks of a group.
#pragma once

#include <cstdint>
#include <functional>

#include "tessera/autograd/tape.hpp"
#include "tessera/comm/communicator.hpp"
#include "tessera/nn/model.hpp"

namespace tessera::parallel {

struct EvaluationResult {
  double loss_sum = 0;
  std::int64_t tokens = 0;
  double loss() const { return tokens > 0 ? loss_sum / static_cast<double>(tokens) : 0; }
};

/// Writes row `row`: `length` inputs and targets (negative: none).
using FillRow = std::function<void(std::int64_t row, std::int32_t* inputs, std::int32_t* targets)>;

/// Evaluates rows 0 … rows - 1 of `length` tokens, `rows_per_rank` at a time on each rank; `hooks`
/// make the model's units resident, on the device of `stream`. The same on any number of ranks up
/// to the order in which fp64 sums are added. Not counted as traffic. Collective: over `group`, and
/// over the model's tensor and pipeline groups, whose ranks take the same rows.
EvaluationResult evaluate(nn::Model& model, autograd::UnitHooks& hooks, Communicator& group,
                          std::int64_t rows, std::int64_t length, std::int64_t rows_per_rank,
                          const FillRow& fill, const Stream& stream = {});

/// Targets that are not negative.
std::int64_t count_valid(const Tensor& targets);

}  // namespace tessera::parallel
