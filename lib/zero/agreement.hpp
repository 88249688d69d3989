// SPDX-License-Identifier: Apache-2.0
// What all ranks have to see alike: the declared parameters, what became of a step, and a gradient
// that is not finite.
#pragma once

#include <span>
#include <string>

#include "tessera/comm/communicator.hpp"

namespace tessera::zero {

/// Throws the same invalid_argument on every rank unless all describe the same. `summary` is for
/// people. Collective.
void agree_on_declaration(Communicator& group, const std::string& description,
                          const std::string& summary);

/// Throws the same `internal` on every rank if some apply a step that others skip: each has found
/// out for itself, and ranks that go apart would wait for each other for ever. `sums` are summed
/// over the group with it, in one message. Collective.
void agree_on_step(Communicator& group, bool applied, std::span<double> sums);

struct NonFinite {
  std::string parameter;
  int owner = -1;  ///< -1: there is none
};
/// The first parameter whose reduced gradient is not finite, and the first rank that owns such an
/// element of it. `place` is that of this rank's first one among all ranks' parameters, or -1.
/// Collective.
NonFinite first_non_finite(Communicator& group, int place, const std::string& name);

}  // namespace tessera::zero
