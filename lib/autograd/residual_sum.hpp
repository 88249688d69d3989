// SPDX-License-Identifier: Apache-2.0
// Parts of a residual sum, for operations that compute it in one step with another.
#pragma once

#include <memory>

#include "tessera/autograd/dropout.hpp"

namespace tessera::autograd {

/// Where a result goes: in place of x when this is its last handle.
Tensor in_place_or_new(Tensor&& x);
/// invalid_argument unless the shapes are equal.
void check_branch(const Value& residual, const Value& x);
/// The tape's side of `sum` = residual + dropout(x), which has been computed; `slot` is x's.
Value record_dropout_add(Tape& tape, const Value& residual,
                         const std::shared_ptr<GradientSlot>& slot, Tensor sum,
                         const DropoutSite& site);

}  // namespace tessera::autograd
