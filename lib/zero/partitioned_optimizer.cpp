// SPDX-License-Identifier: Apache-2.0
// Micro-batches and steps.
#include "tessera/zero/partitioned_optimizer.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/log.hpp"
#include "tessera/kernels/elementwise.hpp"

#include "zero/agreement.hpp"
#include "zero/optimizer_parts.hpp"

namespace tessera::zero {

void PartitionedOptimizer::Impl::require_committed(const char* what) const {
  TESSERA_CHECK(parameters != nullptr, Code::invalid_argument,
                fmt::format("{} needs commit() first", what));
}

void PartitionedOptimizer::Impl::require_own(const char* what) const {
  require_committed(what);
  TESSERA_CHECK(
      kind != Kind::lent, Code::invalid_argument,
      fmt::format("{} is for the optimizer's own storage; lent arrays need only step()", what));
}

void PartitionedOptimizer::Impl::require_training(const char* what) const {
  require_committed(what);
  TESSERA_CHECK(gradients != nullptr, Code::invalid_argument,
                fmt::format("{} needs gradients, and Options::inference is set", what));
}

void PartitionedOptimizer::Impl::require_unit(int unit) const {
  TESSERA_CHECK(unit >= 0 && unit < context.units(), Code::invalid_argument,
                fmt::format("there is no unit {}: there are {}", unit, context.units()));
}

void PartitionedOptimizer::Impl::require_parameter(int parameter) const {
  TESSERA_CHECK(parameter >= 0 && static_cast<std::size_t>(parameter) < views.size(),
                Code::invalid_argument,
                fmt::format("there is no parameter {}: there are {}", parameter, views.size()));
}

MicroBatch PartitionedOptimizer::Impl::now(int unit) const {
  const int done = unit_progress[static_cast<std::size_t>(unit)].ready;
  TESSERA_CHECK(done < options.accumulation_steps, Code::invalid_argument,
                fmt::format("a step has {} micro-batches and all are done: call step() or "
                            "discard_gradients()",
                            options.accumulation_steps));
  return {done, options.accumulation_steps};
}

/// What nobody wrote counts as zero, and so does the gradient of a frozen parameter.
void PartitionedOptimizer::Impl::zero_unwritten(int unit, const std::vector<bool>& written) {
  const FlatUnit& flat = layout.unit(unit);
  const bool holds_sums = gradients->accumulates_locally() && !now(unit).first();
  for (int j = 0; j < flat.parameters; ++j) {
    const auto index = static_cast<std::size_t>(flat.first_parameter + j);
    const bool trainable = rules[index].trainable;
    if (trainable && (written.empty() || written[static_cast<std::size_t>(j)])) continue;
    if (trainable && group.rank() == 0)
      log_warning_once(fmt::format(
          "parameter \"{}\" got no gradient in backward: it counts as zero", views[index].name));
    const FlatParameter& parameter = layout.parameter(static_cast<int>(index));
    if ((trainable && holds_sums) || parameter.numel() == 0) continue;
    const DType type = gradients->written_type();
    context.stream.fill_zero(element(gradients->written(unit), parameter.offset, type),
                             bytes_of(parameter.numel(), type));
  }
}

int PartitionedOptimizer::Impl::finished() const {
  if (unit_progress.empty()) return options.accumulation_steps;
  return std::ranges::min_element(unit_progress, {}, &Progress::ended)->ended;
}

/// Units apart need nothing before the last one.
void PartitionedOptimizer::Impl::finish_micro_batch(int index) {
  const MicroBatch micro_batch{index, options.accumulation_steps};
  const bool all = finished() == index + 1;
  if (options.units_apart ? all && micro_batch.last() : all) gradients->finish(micro_batch);
}

void PartitionedOptimizer::Impl::begin_step() {
  std::ranges::fill(unit_progress, Progress{});
}

void PartitionedOptimizer::Impl::finish_gradients() {
  if (kind == Kind::lent) return gradients->finish({0, 1});
  TESSERA_CHECK(
      finished() == options.accumulation_steps, Code::invalid_argument,
      fmt::format("step() after {} of {} micro-batches", finished(), options.accumulation_steps));
  join_copies();
  parameters->release_all();
  begin_step();
}

void PartitionedOptimizer::Impl::join_copies() {
  const DType type = gradients->held_type();
  const auto first_held = [&](int unit) {
    return gradients->held_at(unit, context.held(unit).begin);
  };
  const auto record_norm = [&](int unit) {
    const Range own = layout.slice(unit, context.rank());
    norm->record(unit, 0, gradients->held_at(unit, own.begin), type, own.count);
  };
  for (const auto& [first, second] : twins) {
    void* const sum = first_held(first);
    kernels::add(context.stream, sum, first_held(second), sum, context.held(first).count, type);
  }
  for (const auto& [unit, ranks] : copies) {
    const std::int64_t count = context.held(unit).count;
    ranks->all_reduce(first_held(unit), count, type, Reduction::sum, context.stream).wait();
    record_norm(unit);
  }
  for (const auto& [first, second] : twins) {
    const std::int64_t count = context.held(first).count;
    context.stream.copy(first_held(second), first_held(first), bytes_of(count, type));
    record_norm(first);
    record_norm(second);
  }
}

UpdateValues PartitionedOptimizer::Impl::update_values(const StepInput& input,
                                                       const StepInput& after_skip) const {
  const auto numbers = [&](const StepInput& of, std::int64_t step) {
    return optim::StepNumbers{of.lr.value_or(options.rule.lr), of.momentum, step};
  };
  // What is not finished is one step at most, and counts if it is applied.
  const auto unknown = static_cast<std::int64_t>(started.size());
  const optim::StepNumbers usual = numbers(input, steps + unknown + 1);
  return {usual, unknown > 0 ? numbers(after_skip, steps + 1) : usual, judge->decision()};
}

StepResult PartitionedOptimizer::Impl::result_of(const kernels::StepDecision& decision) {
  StepResult result;
  result.grad_norm = decision.norm;
  result.clip_coefficient = decision.clip_coefficient;
  result.applied = decision.applied != 0;
  if (!result.applied) explain_skip(decision, result);
  return result;
}

void PartitionedOptimizer::Impl::explain_skip(const kernels::StepDecision& decision,
                                              StepResult& result) {
  const int own = judge->non_finite_parameter(decision);
  int place = own;
  std::string name;
  if (own >= 0) {
    const ParamView& view = views[static_cast<std::size_t>(own)];
    place = view.options.place.value_or(own);
    name = view.name;
  }
  const NonFinite found = first_non_finite(context.everyone(), place, name);
  if (found.owner < 0) {
    result.skipped_reason = "the gradient norm is not finite";
    return;
  }
  result.non_finite_parameter = found.parameter;
  result.non_finite_owner = found.owner;
  result.skipped_reason =
      fmt::format("the gradient of \"{}\" is not finite (in the part of rank {})",
                  result.non_finite_parameter, result.non_finite_owner);
}

void PartitionedOptimizer::Impl::update(const UpdateValues& values) {
  const SliceUpdate slices{context,           *rule, rules, *parameters, *gradients, *states,
                           kind != Kind::lent};
  if (context.holds_whole_states()) {
    for (int u = 0; u < context.units(); ++u) slices.apply(u, context.held(u), values);
    return;
  }
  for (const Bucket& bucket : parameters->update_plan()) {
    for (const BucketPart& part : bucket.parts) {
      const Range own = context.held(part.unit);
      slices.apply(part.unit, {own.begin + part.begin, part.count}, values);
    }
    parameters->publish_next();
    group.progress();
  }
  parameters->finish_publishing();
}

const FlatLayout& PartitionedOptimizer::layout() const {
  return impl_->layout;
}
const Options& PartitionedOptimizer::options() const {
  return impl_->options;
}
Communicator& PartitionedOptimizer::group() const {
  return impl_->group;
}
Communicator& PartitionedOptimizer::everyone() const {
  return impl_->context.everyone();
}
bool PartitionedOptimizer::committed() const {
  return impl_->parameters != nullptr;
}
bool PartitionedOptimizer::lent() const {
  return impl_->kind == Impl::Kind::lent;
}
const ParameterOptions& PartitionedOptimizer::parameter_options(int parameter) const {
  impl_->require_parameter(parameter);
  return impl_->views[static_cast<std::size_t>(parameter)].options;
}

DType PartitionedOptimizer::gradient_dtype() const {
  impl_->require_training("gradient_dtype");
  return impl_->gradients->written_type();
}

void* PartitionedOptimizer::parameter_data(int parameter) const {
  impl_->require_own("parameter_data");
  impl_->require_parameter(parameter);
  const FlatParameter& flat = impl_->layout.parameter(parameter);
  if (flat.numel() == 0) return nullptr;
  void* unit = impl_->parameters->resident(flat.unit);
  TESSERA_CHECK(unit != nullptr, Code::invalid_argument,
                fmt::format("parameter \"{}\" is not resident: gather unit \"{}\" first", flat.name,
                            impl_->layout.unit(flat.unit).name));
  return element(unit, flat.offset, dtype());
}

bool PartitionedOptimizer::resident(int unit) const {
  impl_->require_own("resident");
  impl_->require_unit(unit);
  return impl_->layout.unit(unit).padded == 0 || impl_->parameters->resident(unit) != nullptr;
}

void PartitionedOptimizer::gather(int unit) {
  impl_->require_own("gather");
  impl_->require_unit(unit);
  impl_->parameters->gather(unit);
}

bool PartitionedOptimizer::prefetch(int unit) {
  impl_->require_own("prefetch");
  impl_->require_unit(unit);
  return impl_->parameters->prefetch(unit);
}

void PartitionedOptimizer::prefetch_after(int unit, Direction direction, int most) {
  impl_->require_own("prefetch_after");
  impl_->require_unit(unit);
  const int way = direction == Direction::forward ? 1 : -1;
  for (int u = unit + way; most > 0 && u >= 0 && u < impl_->context.units(); u += way, --most) {
    if (resident(u) || impl_->parameters->under_way(u)) continue;
    if (!impl_->parameters->prefetch(u)) return;
  }
}

void PartitionedOptimizer::release(int unit) {
  impl_->require_own("release");
  impl_->require_unit(unit);
  impl_->parameters->release(unit);
}

void PartitionedOptimizer::attach_gradients(int unit) {
  impl_->require_own("attach_gradients");
  impl_->require_training("attach_gradients");
  impl_->require_unit(unit);
  Impl::Progress& progress = impl_->progress(unit);
  TESSERA_CHECK(impl_->options.units_apart || progress.ready == progress.ended,
                Code::invalid_argument,
                fmt::format("the gradients of unit \"{}\" were ready already in this micro-batch",
                            impl_->layout.unit(unit).name));
  static_cast<void>(impl_->now(unit));
  if (progress.attached) return;
  impl_->gradients->attach(unit);
  progress.attached = true;
}

void* PartitionedOptimizer::gradient_data(int parameter) const {
  impl_->require_own("gradient_data");
  impl_->require_parameter(parameter);
  const FlatParameter& flat = impl_->layout.parameter(parameter);
  TESSERA_CHECK(impl_->progress(flat.unit).attached, Code::invalid_argument,
                fmt::format("the gradient of \"{}\" is not attached", flat.name));
  if (flat.numel() == 0) return nullptr;
  return element(impl_->gradients->written(flat.unit), flat.offset,
                 impl_->gradients->written_type());
}

bool PartitionedOptimizer::gradients_accumulate() const {
  impl_->require_own("gradients_accumulate");
  impl_->require_training("gradients_accumulate");
  return impl_->gradients->accumulates_locally() && impl_->finished() > 0;
}

bool PartitionedOptimizer::accumulates_locally() const {
  impl_->require_own("accumulates_locally");
  impl_->require_training("accumulates_locally");
  return impl_->gradients->accumulates_locally();
}

void PartitionedOptimizer::gradients_ready(int unit, const std::vector<bool>& written) {
  impl_->require_own("gradients_ready");
  impl_->require_unit(unit);
  const FlatUnit& flat = impl_->layout.unit(unit);
  TESSERA_CHECK(written.size() == static_cast<std::size_t>(flat.parameters), Code::invalid_argument,
                fmt::format("gradients_ready of unit \"{}\" got {} flags for {} parameters",
                            flat.name, written.size(), flat.parameters));
  Impl::Progress& progress = impl_->progress(unit);
  TESSERA_CHECK(progress.attached, Code::invalid_argument,
                fmt::format("the gradients of unit \"{}\" are not attached", flat.name));
  impl_->zero_unwritten(unit, written);
  impl_->gradients->ready(unit, impl_->now(unit));
  progress.attached = false;
  ++progress.ready;
  impl_->group.progress();
}

void PartitionedOptimizer::gradients_ready(int unit) {
  impl_->require_own("gradients_ready");
  impl_->require_unit(unit);
  const int parameters = impl_->layout.unit(unit).parameters;
  gradients_ready(unit, std::vector<bool>(static_cast<std::size_t>(parameters), true));
}

void PartitionedOptimizer::progress() {
  impl_->group.progress();
}

void PartitionedOptimizer::end_micro_batch() {
  end_micro_batch(0, impl_->context.units());
}

void PartitionedOptimizer::end_micro_batch(int first, int count) {
  impl_->require_own("end_micro_batch");
  impl_->require_training("end_micro_batch");
  const int units = impl_->context.units();
  TESSERA_CHECK(count == units || impl_->options.units_apart, Code::invalid_argument,
                "units at different micro-batches need Options::units_apart");
  if (units == 0) return impl_->gradients->finish({0, 1});
  if (count == 0) return;  // a stage without parameters
  for (int u = first + count - 1; u >= first; --u) {
    if (impl_->progress(u).ready == impl_->progress(u).ended) {
      attach_gradients(u);
      const int parameters = impl_->layout.unit(u).parameters;
      gradients_ready(u, std::vector<bool>(static_cast<std::size_t>(parameters), false));
    }
  }
  for (int u = first; u < first + count; ++u) ++impl_->progress(u).ended;
  impl_->finish_micro_batch(impl_->progress(first).ended - 1);
}

void PartitionedOptimizer::discard_gradients() {
  impl_->require_own("discard_gradients");
  impl_->require_training("discard_gradients");
  impl_->gradients->abandon();
  impl_->begin_step();
}

StepResult PartitionedOptimizer::step(const StepInput& input) {
  TESSERA_CHECK(impl_->started.empty(), Code::invalid_argument,
                "step() while start_step() has steps under way: finish_step() them first");
  start_step(input);
  return finish_step();
}

void PartitionedOptimizer::start_step(const StepInput& input, const StepInput& after_skip) {
  impl_->require_training("step");
  TESSERA_CHECK(std::isfinite(input.loss_scale) && input.loss_scale > 0, Code::invalid_argument,
                fmt::format("loss_scale is {}: a positive number", input.loss_scale));
  TESSERA_CHECK(impl_->started.size() < 2, Code::invalid_argument,
                "two steps are under way: finish_step() the first before a third is started");
  impl_->finish_gradients();
  const UpdateValues values = impl_->update_values(input, after_skip);
  PendingDecision& pending = impl_->started.emplace_back(impl_->judge->judge(input.loss_scale));
  if (pending.immediate() && pending.get().applied == 0) return;
  impl_->update(values);
}

StepResult PartitionedOptimizer::finish_step(std::span<double> sums) {
  TESSERA_CHECK(!impl_->started.empty(), Code::invalid_argument,
                "finish_step() without a step under way: start_step() first");
  const kernels::StepDecision decision = impl_->started.front().get();
  impl_->started.pop_front();
  agree_on_step(impl_->context.everyone(), decision.applied != 0, sums);
  if (decision.applied != 0) ++impl_->steps;
  return impl_->result_of(decision);
}

std::int64_t PartitionedOptimizer::steps() const {
  return impl_->steps;
}

void PartitionedOptimizer::set_steps(std::int64_t steps) {
  TESSERA_CHECK(steps >= 0, Code::invalid_argument, fmt::format("{} steps are too few", steps));
  TESSERA_CHECK(impl_->started.empty(), Code::invalid_argument,
                "set_steps() while steps are under way: finish_step() them first");
  impl_->steps = steps;
}

}  // namespace tessera::zero
