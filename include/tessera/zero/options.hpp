// SPDX-License-Identifier: Apache-2.0
// What a partitioned optimizer is told at its construction, and at each step.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "tessera/base/dtype.hpp"
#include "tessera/comm/communicator.hpp"
#include "tessera/device/device.hpp"
#include "tessera/optim/update_rule.hpp"

namespace tessera::zero {

struct Options {
  /// 0: everything whole on every rank; 1: optimizer states partitioned; 2: and gradients; 3: and
  /// parameters.
  int stage = 0;
  /// Only parameters are held, in own storage: gather and release work, whatever has to do with
  /// gradients is an error.
  bool inference = false;
  /// Update rule with its defaults for lr, decay and momentum.
  optim::UpdateOptions rule{};
  /// Where parameters, gradients and states live. Everything runs on the stream that is current for
  /// it (tessera/device/cuda.hpp) when the optimizer is made.
  Device device{};
  /// Parameters, gradients and what is sent: fp32, bf16 with a split fp32 master, or fp16 with an
  /// fp32 master beside it.
  DType dtype = DType::fp32;
  /// fp32, bf16 or fp16: gradients are rounded to it, reduced in it, and rounded back to what is
  /// held; through two buffers of reduce_bucket_size where it is not what backward writes. nullopt:
  /// dtype.
  std::optional<DType> communication_dtype{};
  /// Largest global gradient norm; 0: no clipping. The coefficient is max / (norm + 1e-6) where
  /// that is below 1.
  double gradient_clipping = 0;
  /// All ranks that train one model, where the optimizer's group has only a part of its parameters
  /// (tensor-parallel ranks): the norm is over their counted parameters, a step is skipped by all
  /// or none, and the same error is thrown on each. nullptr: the group. Must outlive the optimizer.
  Communicator* everyone = nullptr;
  /// sum, or mean over the ranks.
  Reduction reduction = Reduction::sum;
  /// Micro-batches of one step (not for lent arrays, whose owner accumulates).
  int accumulation_steps = 1;
  /// Type in which the gradients of several micro-batches add up: fp32, or `dtype`, which takes
  /// less memory and rounds every sum.
  DType accumulation_dtype = DType::fp32;
  /// Stages 0 and 1 then reduce as 2 and 3 do, which makes the bits of all four equal; costs
  /// traffic.
  bool reduce_every_micro_batch = false;
  /// Units go through the micro-batches of a step each at its own pace, as in a pipeline where a
  /// rank has several stages or gradients of weights are computed later than those of inputs: see
  /// PartitionedOptimizer::end_micro_batch(first, count). In stages 2 and 3 a bucket then has
  /// elements of one unit only. Not in stage 0 with reduce_every_micro_batch: not_supported.
  bool units_apart = false;
  /// Elements, counted over all ranks, that one reduction or gather of updated parameters sends.
  /// Never changes a bit. In stages 2 and 3, and for lent arrays, about twice this many elements
  /// are held in buckets.
  std::int64_t reduce_bucket_size = std::int64_t{1} << 23;
  std::int64_t gather_bucket_size = std::int64_t{1} << 23;
  /// Stage 3: elements that may be gathered ahead of their use.
  std::int64_t prefetch_elements = std::int64_t{1} << 24;
  /// Reductions and gathers go on while the caller computes. False: each is finished where it
  /// starts.
  bool overlap = true;
};

/// What changes from step to step.
struct StepInput {
  std::optional<double> lr{};        // nullopt: the rule's own
  std::optional<double> momentum{};  // a schedule's beta1; nullopt: the rule's own
  /// Gradients were multiplied by this (loss scaling): they are divided by it, and so is the norm.
  double loss_scale = 1;
};

/// The same on every rank.
struct StepResult {
  /// Global norm of the reduced gradient before clipping; NaN or infinite when the step was
  /// skipped.
  double grad_norm = 0;
  /// What clipping multiplied the gradients by.
  double clip_coefficient = 1;
  /// False: a gradient was not finite, and no parameter or state changed.
  bool applied = true;
  /// Empty, or a sentence naming the first parameter (in layout order) that has a non-finite
  /// gradient, and the rank that owns that element.
  std::string skipped_reason{};
  std::string non_finite_parameter{};
  int non_finite_owner = -1;
};

}  // namespace tessera::zero
