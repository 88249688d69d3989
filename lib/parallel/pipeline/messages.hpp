// SPDX-License-Identifier: Apache-2.0
// Which message a computation waits for and which it makes, and where in the lists messages go.
#pragma once

#include <optional>
#include <vector>

#include "parallel/pipeline/order.hpp"

namespace tessera::parallel::pipeline {

/// The receive that must come before `computation`, if its input is made by another rank.
std::optional<PipelineAction> needed_message(const PipelineShape& shape,
                                             const PipelineAction& computation);
/// The send of what `computation` makes, if another rank waits for it.
std::optional<PipelineAction> made_message(const PipelineShape& shape,
                                           const PipelineAction& computation);
/// The receive that belongs to a send.
PipelineAction matching_receive(const PipelineAction& send, int sender);

/// Puts sends and receives into the orders, one per rank.
///
/// The orders are executed once in whole steps of time (a forward and each half of a backward take
/// one), with a buffer of one message per directed pair of ranks. A rank sends what it made at
/// once, or as soon as the buffer is free, and between computations takes in whatever has arrived.
/// What happened, ordered by the time when it was complete, is a valid serial execution. In it each
/// receive may move back, up to its use or to the next send on the same pair, which needs the
/// buffer; so a rank waits for a message as late as it can. The lists of the ranks are parts of
/// that serial execution, which is the proof that they cannot lock up. (The outcome of blocking
/// sends and receives in fixed lists does not depend on timing.)
std::vector<std::vector<PipelineAction>> with_messages(const PipelineShape& shape,
                                                       const std::vector<RankOrder>& orders);

}  // namespace tessera::parallel::pipeline
