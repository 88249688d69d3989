// SPDX-License-Identifier: Apache-2.0
// What all ranks have to see alike: the declared parameters, the norm, and a gradient that is not
// finite.
#pragma once

#include <string>

#include "zero/context.hpp"
#include "zero/gradient_store.hpp"

namespace tessera::zero {

/// Throws the same invalid_argument on every rank unless all describe the same. `summary` is for
/// people. Collective.
void agree_on_declaration(Communicator& group, const std::string& description,
                          const std::string& summary);

/// Left fold of every rank's value in rank order, in fp64. Collective; counted as scalars.
double sum_in_rank_order(Communicator& group, double own);

struct NonFinite {
  int parameter = -1;
  int owner = -1;
};
/// The first parameter, in layout order, whose reduced gradient is not finite, and the first rank
/// that owns such an element of it. Collective.
NonFinite find_non_finite(const Context& context, const GradientStore& gradients);

}  // namespace tessera::zero
