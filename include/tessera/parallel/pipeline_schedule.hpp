// SPDX-License-Identifier: Apache-2.0
// Pipeline schedules as data: what each rank of a pipeline does, in which order.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tessera::parallel {

/// The order in which a pipeline works; doc/pipeline-schedules.md draws each one.
enum class PipelineKind : std::uint8_t {
  gpipe,                     ///< all forwards, then all backwards (Huang et al., arXiv:1811.06965)
  one_forward_one_backward,  ///< "1f1b": PipeDream-Flush (Narayanan et al., arXiv:2006.09503)
  interleaved,  ///< "interleaved-1f1b": v chunks a rank (Narayanan et al., arXiv:2104.04473)
  zero_bubble,  ///< "zero-bubble": ZB-H1 (Qi et al., arXiv:2401.10241)
  zb_v,         ///< "zb-v": two chunks in a V (Qi et al., arXiv:2405.15362)
};

/// All of them, in the order of the enumeration.
const std::vector<PipelineKind>& pipeline_kinds();
/// "gpipe", "1f1b", "interleaved-1f1b", "zero-bubble", "zb-v".
const char* to_string(PipelineKind kind);
/// The kind with that name; throws invalid_argument with the list of names.
PipelineKind pipeline_kind(std::string_view name);

/// What fixes a schedule. A *stage* is a run of consecutive layers; a rank holds `chunks` of them.
struct PipelineShape {
  PipelineKind kind = PipelineKind::one_forward_one_backward;
  int ranks = 1;
  int micro_batches = 1;
  int chunks = 0;  ///< stages of a rank; 0: as the kind has it (1; interleaved-1f1b and zb-v 2)

  /// Fills in `chunks`. Throws invalid_argument naming the numbers and the rule: at least one rank
  /// and one micro-batch; one chunk for gpipe, 1f1b and zero-bubble; at least two for
  /// interleaved-1f1b; two for zb-v; at most 2^30 stages x micro-batches. Any number of
  /// micro-batches will do, also fewer than ranks.
  PipelineShape resolved() const;

  // Of a resolved shape:
  int stages() const { return ranks * chunks; }
  /// Chunk c of rank r is stage c p + r; in zb-v the second chunk runs backwards, 2 p - 1 - r.
  int stage_of(int rank, int chunk) const;
  int rank_of(int stage) const;
  int chunk_of(int stage) const { return stage / ranks; }
  /// Whether the backward is split into input and weight gradients.
  bool splits_backward() const;
  std::string to_string() const;  // "zb-v, 4 ranks x 2 chunks, 8 micro-batches"
};

enum class ActionKind : std::uint8_t {
  forward,
  backward,            ///< input and weight gradients in one
  backward_input,      ///< the gradient that the stage before waits for
  backward_weight,     ///< the rest; activations live until it ends
  send_activation,     ///< the output of `stage`, to the rank of stage + 1
  receive_activation,  ///< the input of `stage`, from the rank of stage - 1
  send_gradient,       ///< the input gradient of `stage`, to the rank of stage - 1
  receive_gradient,    ///< the output gradient of `stage`, from the rank of stage + 1
};

struct PipelineAction {
  ActionKind kind = ActionKind::forward;
  int micro_batch = 0;
  int stage = 0;  ///< always one of the acting rank
  int peer = -1;  ///< the other rank of a message; -1 for computations

  bool is_send() const {
    return kind == ActionKind::send_activation || kind == ActionKind::send_gradient;
  }
  bool is_receive() const {
    return kind == ActionKind::receive_activation || kind == ActionKind::receive_gradient;
  }
  bool computes() const { return !is_send() && !is_receive(); }
  bool operator==(const PipelineAction&) const = default;
  /// "receive of the activation of micro-batch 3 for stage 2 from rank 1"
  std::string to_string() const;
};

/// `actions[r]` is what rank r does, from first to last. Between stages of one rank nothing is
/// sent.
///
/// What every schedule of make_pipeline_schedule keeps:
/// - each stage treats each micro-batch once: forward, then backward (or backward_input, then
///   backward_weight), each after what it needs;
/// - a stage takes its forwards, its backwards and its weight gradients in ascending micro-batches,
///   so sums over micro-batches have the same bits in all schedules;
/// - messages between two ranks, activations and gradients together, are received in the order in
///   which they are sent, and one message of buffer for each direction of a pair of ranks is
///   enough: neither blocking receives nor sends that wait for the buffer can lock up, whatever the
///   actions cost (with blocking calls in fixed lists, what cannot happen for some costs happens
///   for none).
struct PipelineSchedule {
  PipelineShape shape;
  std::vector<std::vector<PipelineAction>> actions;
};

/// The schedule of a shape. interleaved-1f1b takes micro-batches through the chunks in groups of
/// about p: m / p groups (rounded down, at least one) as even as possible, larger ones first, which
/// is the classic form when p divides m. zb-v is the form for m >= 2 p - 1; with fewer
/// micro-batches it is that one without the actions of those that are missing.
PipelineSchedule make_pipeline_schedule(const PipelineShape& shape);

/// Checks a schedule that may have been made by hand: that each stage treats each micro-batch once
/// and after what it needs, and that sends and receives match in order. Throws invalid_argument
/// naming rank, position and action. Does not look for deadlocks: simulate() does.
void check_pipeline_schedule(const PipelineSchedule& schedule);

}  // namespace tessera::parallel
