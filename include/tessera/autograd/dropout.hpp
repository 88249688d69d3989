// SPDX-License-Identifier: Apache-2.0
// Dropout and residual sums.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "tessera/autograd/tape.hpp"
#include "tessera/base/interval.hpp"
#include "tessera/kernels/pass_variables.hpp"

namespace tessera::autograd {

/// Where in the job's random numbers one use of dropout lies.
struct DropoutSite {
  float probability = 0;
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;
  std::int64_t offset = 0;  // global index of the first element
  // See kernels::Dropout.
  const kernels::PassVariables* variables = nullptr;
  std::int64_t row_elements = 0;
  /// Where a rank has some elements of a tensor: the global indices of each neighbouring run,
  /// counted from `offset`, in the order in which it has them. nullptr: all are neighbours.
  std::shared_ptr<const std::vector<Interval>> runs{};
};

/// Saves nothing: the mask is drawn again.
Value dropout(Tape& tape, Value x, const DropoutSite& site);
/// residual + dropout(x). Written in place of x if the caller gives up the last handle to it.
Value dropout_add(Tape& tape, const Value& residual, Value x, const DropoutSite& site);

}  // namespace tessera::autograd
