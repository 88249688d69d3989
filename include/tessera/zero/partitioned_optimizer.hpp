// SPDX-License-Identifier: Apache-2.0
// The ZeRO optimizer: parameters, gradients and optimizer states partitioned over the ranks of a
// group, for arrays that a caller lends or for storage of its own.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tessera/base/dtype.hpp"
#include "tessera/base/shape.hpp"
#include "tessera/comm/communicator.hpp"
#include "tessera/zero/flat_layout.hpp"
#include "tessera/zero/options.hpp"
#include "tessera/zero/param_view.hpp"

namespace tessera {
class Runtime;
}

namespace tessera::zero {

enum class Direction { forward, backward };

/// Two ways to use it, one geometry (FlatLayout), the same bits in every stage (doc/numerics.md).
///
/// *Lent arrays*: `add("w", {rows, columns}, weights, gradients)` for each array, `commit()`, then
/// in every step fill the gradients and call `step()`. The arrays stay the caller's and whole on
/// every rank in every stage; step() reduces the gradients, updates each rank's slice and gathers
/// the parameters. Stages 1–3 partition the optimizer states and send the same; afterwards only the
/// owned slices of the gradient arrays hold the reduced gradient (stage 0: all of them).
///
/// *Own storage*: `begin_unit(name)` and `add(name, shape)` without pointers; memory by stage comes
/// with commit(). Each micro-batch: gather(u) before the forward use of unit u and release(u)
/// after it; the same in backward, where attach_gradients(u) comes before the first gradient of
/// the unit is written and gradients_ready(u, …) after the last; end_micro_batch() when backward is
/// done. After `accumulation_steps` of them, step(). All ranks make the same calls in the same
/// order.
///
/// Threads: one thread at a time. Errors: invalid_argument for a call that the phase, the stage or
/// the kind of storage does not allow, saying which.
class PartitionedOptimizer {
 public:
  /// Collective: over the ranks of `runtime`, respectively of `group`, which has to live longer.
  /// Errors: not_supported for dtypes other than fp32, bf16 and fp16; invalid_config for impossible
  /// options.
  PartitionedOptimizer(Runtime& runtime, const Options& options);
  PartitionedOptimizer(Communicator& group, const Options& options);
  ~PartitionedOptimizer();
  PartitionedOptimizer(const PartitionedOptimizer&) = delete;
  PartitionedOptimizer& operator=(const PartitionedOptimizer&) = delete;

  // --- Before commit ---

  /// Later parameters belong to this unit; without it there is one unit "parameters". Returns its
  /// index. The ranks of `copies` have units of the same parameters, each with gradients of its
  /// own, which are added up over them after they were reduced and before the norm: the copies stay
  /// equal to the bit. `copies` has to live longer. Several such units of a rank are added up in
  /// the order of their first parameters' ParameterOptions::place. Own storage only.
  int begin_unit(const std::string& name, Communicator* copies = nullptr);
  /// The same for two units of this rank; only `first` may have copies on other ranks, and several
  /// may be tied to it.
  void tie_units(int first, int second);
  /// Lends an array and its gradient; returns the parameter's index.
  int add(const ParamView& view);
  int add(const std::string& name, const Shape& shape, float* data, float* gradient,
          const ParameterOptions& options = {});
  int add(const std::string& name, const Shape& shape, bf16* data, bf16* gradient,
          const ParameterOptions& options = {});
  /// Its fp32 master begins with the array's values at commit(); what a caller writes into the
  /// array later is lost at the next step.
  int add(const std::string& name, const Shape& shape, fp16* data, fp16* gradient,
          const ParameterOptions& options = {});
  /// A parameter in the optimizer's own storage, zero until load().
  int add(const std::string& name, const Shape& shape, const ParameterOptions& options = {});
  /// Makes the storage; lent arrays take the values of rank 0. Collective. Errors: the same on
  /// every rank when names, shapes or options differ between ranks or a rank has not enough memory.
  void commit();

  // --- What there is ---

  const FlatLayout& layout() const;
  const Options& options() const;
  Communicator& group() const;
  /// Options::everyone, or the group.
  Communicator& everyone() const;
  bool committed() const;
  bool lent() const;
  /// Of parameters, gradients and states.
  Device device() const { return options().device; }
  /// Of parameters.
  DType dtype() const { return options().dtype; }
  /// Of the arrays that backward writes: the run's dtype, or fp32 where micro-batches accumulate
  /// locally.
  DType gradient_dtype() const;
  const ParameterOptions& parameter_options(int parameter) const;

  // --- Own storage: parameters ---

  /// First element of the parameter; valid while its unit is resident: always in stages 0–2,
  /// between gather and release in stage 3. Until the next step.
  void* parameter_data(int parameter) const;
  bool resident(int unit) const;
  /// Makes the unit resident and waits for it; nothing to do if it is. Collective in stage 3.
  void gather(int unit);
  /// Starts gathering the unit so that a later gather() does not wait; false if it is resident,
  /// under way, or would exceed Options::prefetch_elements. Every unit that was prefetched has to
  /// be gathered. Collective in stage 3.
  bool prefetch(int unit);
  /// prefetch() of the units that follow `unit` in the direction (… u + 1, u + 2 or u - 1, u - 2)
  /// as far as they fit, `most` of them at most. Collective in stage 3.
  void prefetch_after(int unit, Direction direction, int most = std::numeric_limits<int>::max());
  /// Stage 3: gives the memory back. A unit that was prefetched and not used is dropped as well.
  void release(int unit);

  // --- Own storage: gradients ---

  /// Makes gradient_data() of the unit's parameters valid until gradients_ready(). Collective in
  /// stages 2 and 3.
  void attach_gradients(int unit);
  /// First element, of gradient_dtype(); valid while attached.
  void* gradient_data(int parameter) const;
  /// True: the gradient arrays hold the sum of this step's earlier micro-batches, to which backward
  /// has to add. False: the first write of the micro-batch overwrites.
  bool gradients_accumulate() const;
  /// True: micro-batches of a step add up in the gradient arrays, which are reduced once.
  bool accumulates_locally() const;
  /// Every gradient of the unit is complete for this micro-batch; reduction may start. written[j]
  /// tells whether parameter j of the unit got one: if not it counts as zero, which is said once by
  /// name. Collective.
  void gradients_ready(int unit, const std::vector<bool>& written);
  void gradients_ready(int unit);
  /// Lets pending communication move on, without blocking.
  void progress();
  /// Backward is done: units that were never ready count as zero, reductions are finished.
  /// Collective.
  void end_micro_batch();
  /// With Options::units_apart: units [first, first + count) are done with one more micro-batch.
  /// Each may have been ready() for later ones before; what is under way may stay so until the last
  /// unit's last one.
  void end_micro_batch(int first, int count);
  /// Forgets the micro-batches since the last step. Collective.
  void discard_gradients();

  // --- Both ---

  /// Finishes the reduction, agrees on the norm, updates and gathers. Collective. A gradient that
  /// is not finite skips the update on every rank and is reported, not thrown.
  StepResult step(const StepInput& input = {});
  /// step() in two halves, so that a GPU need not wait for the host. start_step() enqueues
  /// everything; the GPU itself finds the norm and decides about clipping and skipping.
  /// finish_step() waits for what it has decided about the oldest step that was started, and tells.
  /// One more step may be started before, whose lr and momentum are those of `after_skip` if the
  /// step before it turns out to be skipped. The results are those of step(), to the bit; on the
  /// CPU, and with lent arrays, there is nothing to gain. `sums` (a loss) are summed over
  /// everyone() with the ranks' agreement on the step. Collective. Errors: internal, on every rank,
  /// if ranks decided differently.
  void start_step(const StepInput& input, const StepInput& after_skip);
  void start_step(const StepInput& input = {}) { start_step(input, input); }
  StepResult finish_step(std::span<double> sums = {});
  /// Updates applied so far, in steps that are finished.
  std::int64_t steps() const;
  void set_steps(std::int64_t steps);

  // --- Values, for initialisation and checkpoints; ranges are counted inside the parameter ---

  /// What this rank saves: its slice, in every stage. Over all ranks each element once.
  Range owned(int parameter) const;
  /// What load() and load_state() have to be given: the whole parameter in stage 0, else owned().
  Range held(int parameter) const;
  /// Sets fp32 master values. What lies outside held() is ignored, so a caller may pass the whole
  /// parameter.
  void load(int parameter, std::int64_t begin, std::int64_t count, const float* values);
  /// Brings what load() changed to the ranks that hold it whole. Collective; not counted as
  /// traffic.
  void finish_load();
  /// Copies fp32 master values; the range has to lie inside held().
  void master(int parameter, std::int64_t begin, std::int64_t count, float* values) const;
  /// "exp_avg", …: the rule's.
  const std::vector<std::string>& state_names() const;
  /// fp32 values of a state from held(parameter).begin on, on the optimizer's device; nullptr if
  /// held() is empty.
  float* state(int parameter, const std::string& name);
  const float* state(int parameter, const std::string& name) const;
  /// The same in and out of host memory, for a range inside held().
  void load_state(int parameter, const std::string& name, Range range, const float* values);
  void copy_state(int parameter, const std::string& name, Range range, float* values) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tessera::zero
