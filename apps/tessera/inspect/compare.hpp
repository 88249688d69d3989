// SPDX-License-Identifier: Apache-2.0
// The difference between two checkpoints or models.
#pragma once

#include <string>

#include "apps/tessera/inspect/contents.hpp"

namespace tessera::app {

/// Every tensor of both, bit for bit (a NaN equals a NaN), and what the files say of themselves.
/// `equal` is true when the tensors are, and with two checkpoints also step, samples, tokens and
/// model; config and state are told, but a run elsewhere or on another mesh has its own. A model
/// folder is compared with the parameters of a checkpoint only, under the names of either.
Json compare_contents(const Contents& a, const Contents& b);

/// The comparison for people.
std::string format_comparison(const Json& comparison);

}  // namespace tessera::app
