// SPDX-License-Identifier: Apache-2.0
// From the construction of an optimizer to its storage.
#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/comm/runtime.hpp"
#include "tessera/kernels/elementwise.hpp"
#include "tessera/optim/parameter_groups.hpp"

#include "zero/agreement.hpp"
#include "zero/optimizer_parts.hpp"

namespace tessera::zero {
namespace {

bool is_trainable(DType dtype) {
  return dtype == DType::fp32 || dtype == DType::bf16 || dtype == DType::fp16;
}

const Options& checked(const Options& options) {
  const auto require = [](bool good, const char* name, auto value, const char* range) {
    TESSERA_CHECK(good, Code::invalid_config, fmt::format("{} is {}: {}", name, value, range));
  };
  require(options.stage >= 0 && options.stage <= 3, "stage", options.stage, "0, 1, 2 or 3");
  require(options.accumulation_steps >= 1, "accumulation_steps", options.accumulation_steps,
          "at least 1");
  require(std::isfinite(options.gradient_clipping) && options.gradient_clipping >= 0,
          "gradient_clipping", options.gradient_clipping, "a norm, or 0 for no clipping");
  require(options.reduce_bucket_size >= 1, "reduce_bucket_size", options.reduce_bucket_size,
          "elements, at least 1");
  require(options.gather_bucket_size >= 1, "gather_bucket_size", options.gather_bucket_size,
          "elements, at least 1");
  require(options.prefetch_elements >= 0, "prefetch_elements", options.prefetch_elements,
          "elements, at least 0");
  require(options.reduction == Reduction::sum || options.reduction == Reduction::mean, "reduction",
          to_string(options.reduction), "sum or mean");
  TESSERA_CHECK(is_trainable(options.dtype), Code::not_supported,
                fmt::format("the partitioned optimizer cannot train in {}: fp32, bf16 or fp16",
                            to_string(options.dtype)));
  const DType sent = options.communication_dtype.value_or(options.dtype);
  TESSERA_CHECK(is_trainable(sent), Code::not_supported,
                fmt::format("gradients cannot be sent in {}: fp32, bf16 or fp16", to_string(sent)));
  TESSERA_CHECK(
      options.accumulation_dtype == DType::fp32 || options.accumulation_dtype == options.dtype,
      Code::not_supported,
      fmt::format("gradients of a run in {} cannot accumulate in {}: fp32 or {}",
                  to_string(options.dtype), to_string(options.accumulation_dtype),
                  to_string(options.dtype)));
  return options;
}

/// Every option: overlap and sizes decide, with the order of calls, when memory is allocated
/// together.
std::string describe(const Options& o) {
  const optim::UpdateOptions& r = o.rule;
  return fmt::format("{} {} {} {} {} {} {} {} {} {} {} {} {}\n", o.stage, to_string(o.dtype),
                     to_string(o.communication_dtype.value_or(o.dtype)), o.gradient_clipping,
                     to_string(o.reduction), o.accumulation_steps, to_string(o.accumulation_dtype),
                     o.reduce_every_micro_batch, o.units_apart, o.reduce_bucket_size,
                     o.gather_bucket_size, o.prefetch_elements, o.overlap) +
         fmt::format("{} {} {} {} {} {} {} {} {} {} {}\n", r.type, r.lr, r.weight_decay, r.beta1,
                     r.beta2, r.epsilon, r.adam_w_mode, r.bias_correction, r.momentum, r.dampening,
                     r.nesterov);
}

}  // namespace

PartitionedOptimizer::Impl::Impl(Communicator& communicator, const Options& given)
    : group(communicator),
      options(checked(given)),
      layout(communicator.size()),
      context{layout, group, options},
      rule(optim::make_update_rule(given.rule)) {}

void PartitionedOptimizer::Impl::check_view(const ParamView& view) const {
  const auto refuse = [&](Code code, const std::string& why) {
    fail(code, fmt::format("parameter \"{}\" {}", view.name, why));
  };
  if (view.dtype != options.dtype)
    refuse(Code::invalid_argument,
           fmt::format("is {}, but the optimizer was made for {}", tessera::to_string(view.dtype),
                       tessera::to_string(options.dtype)));
  if (view.device != context.device())
    refuse(Code::invalid_argument,
           fmt::format("lies on {}, but the optimizer was made for {}", view.device.to_string(),
                       context.device().to_string()));
  if (view.shape.numel() == 0) return;
  if (view.data == nullptr) refuse(Code::invalid_argument, "has a null data pointer");
  if (view.gradient == nullptr && view.options.trainable)
    refuse(Code::invalid_argument,
           "is trainable and has a null gradient pointer: lend one, or set trainable to false");
}

int PartitionedOptimizer::Impl::add(const ParamView& view, Kind wanted) {
  TESSERA_CHECK(!parameters, Code::invalid_argument,
                fmt::format("parameter \"{}\" comes after commit(): add all before", view.name));
  TESSERA_CHECK(kind == Kind::undecided || kind == wanted, Code::invalid_argument,
                fmt::format("parameter \"{}\" would mix lent arrays with the optimizer's own "
                            "storage: use an optimizer for each",
                            view.name));
  TESSERA_CHECK(
      wanted == Kind::own || options.accumulation_steps == 1, Code::invalid_config,
      fmt::format("accumulation_steps is {} and parameter \"{}\" is lent: add micro-batches "
                  "into its gradient array yourself and leave it at 1",
                  options.accumulation_steps, view.name));
  if (wanted == Kind::lent) check_view(view);
  if (layout.units().empty()) layout.begin_unit("parameters");
  const int index = layout.add(view.name, view.shape);
  kind = wanted;
  const double usual = optim::weight_decay_of({.weight_decay = options.rule.weight_decay},
                                              view.name, view.shape.rank());
  rules.push_back({view.options.trainable, view.options.weight_decay.value_or(usual)});
  views.push_back(view);
  return index;
}

void PartitionedOptimizer::Impl::check_declaration() const {
  std::string description = describe(options) + (kind == Kind::lent ? "lent\n" : "own\n");
  for (const FlatUnit& unit : layout.units())
    description += fmt::format("unit {} {}\n", unit.name, unit.parameters);
  for (std::size_t i = 0; i < views.size(); ++i)
    description += fmt::format("{} {} {} {}\n", views[i].name, views[i].shape.to_string(),
                               rules[i].trainable, rules[i].weight_decay);
  agree_on_declaration(
      group, description,
      fmt::format("{} parameters with {} elements in {} units (stage {})", views.size(),
                  layout.elements(), layout.units().size(), options.stage));
}

std::vector<std::int64_t> PartitionedOptimizer::Impl::counted_elements() const {
  std::vector<std::int64_t> counted;
  for (const FlatUnit& unit : layout.units()) {
    bool all = true;
    std::int64_t elements = 0;
    for (int i = unit.first_parameter; i < unit.first_parameter + unit.parameters; ++i) {
      const ParamView& view = views[static_cast<std::size_t>(i)];
      TESSERA_CHECK(all || !view.options.counted, Code::invalid_argument,
                    fmt::format("parameter \"{}\" counts in the norm and comes after one of unit "
                                "\"{}\" that does not: add those last",
                                view.name, unit.name));
      all = all && view.options.counted;
      if (all) elements += view.shape.numel();
    }
    counted.push_back(all ? unit.padded : elements);
  }
  return counted;
}

void PartitionedOptimizer::Impl::make_storage() {
  Communicator& everyone = context.everyone();
  std::unique_ptr<HeldStates> new_states;
  agreeing(everyone, [&] { new_states = std::make_unique<HeldStates>(context, *rule); });
  TESSERA_CHECK((copies.empty() && twins.empty()) || kind != Kind::lent, Code::invalid_argument,
                "units of lent arrays cannot be tied");
  // In an order that all ranks have alike: a rank waits for one after the other.
  std::ranges::sort(copies, {}, [&](const auto& copy) {
    const int parameter = layout.unit(copy.first).first_parameter;
    return views[static_cast<std::size_t>(parameter)].options.place.value_or(parameter);
  });
  norm = std::make_unique<SliceNorm>(context, counted_elements());
  unit_progress.assign(layout.units().size(), {});
  if (kind == Kind::lent) {
    gradients = make_lent_gradients(context, *norm, views);
    parameters = make_lent_parameters(context, views);
  } else {
    const bool sharded = options.stage >= 2 || (options.stage == 1 && reduces_early());
    agreeing(everyone, [&] {
      if (options.inference) return;
      gradients =
          sharded ? make_sharded_gradients(context, *norm) : make_whole_gradients(context, *norm);
    });
    parameters =
        options.stage == 3 ? make_sliced_parameters(context) : make_whole_parameters(context);
  }
  states = std::move(new_states);
  if (gradients) judge = std::make_unique<StepJudge>(context, *norm, *gradients);
}

void PartitionedOptimizer::Impl::take_values_of_rank_0() {
  const Traffic::Pause pause(group.traffic());
  for (const ParamView& view : views)
    if (view.shape.numel() > 0)
      group.broadcast(view.data, view.shape.numel(), view.dtype, 0, context.stream).wait();
}

void PartitionedOptimizer::Impl::start_masters() {
  for (int u = 0; u < context.units(); ++u)
    for (const FlatPiece& piece : layout.pieces(u, context.held(u)))
      if (float* master = states->master(u, piece.unit_begin))
        kernels::cast(context.stream, parameters->held(piece, u), options.dtype, master,
                      DType::fp32, piece.count);
}

PartitionedOptimizer::PartitionedOptimizer(Communicator& group, const Options& options)
    : impl_(std::make_unique<Impl>(group, options)) {}

PartitionedOptimizer::PartitionedOptimizer(Runtime& runtime, const Options& options)
    : PartitionedOptimizer(runtime.world(), options) {}

PartitionedOptimizer::~PartitionedOptimizer() = default;

int PartitionedOptimizer::begin_unit(const std::string& name, Communicator* copies) {
  TESSERA_CHECK(!impl_->parameters, Code::invalid_argument,
                fmt::format("unit \"{}\" comes after commit(): begin all before", name));
  const int unit = impl_->layout.begin_unit(name);
  if (copies != nullptr) impl_->copies.emplace_back(unit, copies);
  return unit;
}

void PartitionedOptimizer::tie_units(int first, int second) {
  TESSERA_CHECK(!impl_->parameters, Code::invalid_argument, "units are tied before commit()");
  impl_->twins.emplace_back(first, second);
}

int PartitionedOptimizer::add(const ParamView& view) {
  return impl_->add(view, Impl::Kind::lent);
}

int PartitionedOptimizer::add(const std::string& name, const Shape& shape, float* data,
                              float* gradient, const ParameterOptions& options) {
  return add(ParamView{name, shape, data, gradient, DType::fp32, Device{}, options});
}

int PartitionedOptimizer::add(const std::string& name, const Shape& shape, bf16* data,
                              bf16* gradient, const ParameterOptions& options) {
  return add(ParamView{name, shape, data, gradient, DType::bf16, Device{}, options});
}

int PartitionedOptimizer::add(const std::string& name, const Shape& shape, fp16* data,
                              fp16* gradient, const ParameterOptions& options) {
  return add(ParamView{name, shape, data, gradient, DType::fp16, Device{}, options});
}

int PartitionedOptimizer::add(const std::string& name, const Shape& shape,
                              const ParameterOptions& options) {
  return impl_->add(
      ParamView{name, shape, nullptr, nullptr, impl_->options.dtype, Device{}, options},
      Impl::Kind::own);
}

void PartitionedOptimizer::commit() {
  TESSERA_CHECK(!impl_->parameters, Code::invalid_argument, "commit() was called before");
  impl_->check_declaration();
  impl_->make_storage();
  if (impl_->kind != Impl::Kind::lent) return;
  impl_->take_values_of_rank_0();
  impl_->start_masters();
}

}  // namespace tessera::zero
