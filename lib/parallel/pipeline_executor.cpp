// SPDX-License-Identifier: Apache-2.0
#include "tessera/parallel/pipeline_executor.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/timer.hpp"

#include "parallel/pipeline/action_span.hpp"
#include "parallel/pipeline/stage_link.hpp"

namespace tessera::parallel {
namespace {

using autograd::Recording;
using autograd::Tape;
using autograd::Value;

void check_stages(const nn::Network& network, const PipelineSchedule& schedule) {
  const nn::PipelineAxis& axis = network.pipeline();
  const PipelineShape& shape = schedule.shape;
  TESSERA_CHECK(axis.group != nullptr, Code::invalid_argument,
                "this network has the stages of a pipeline without its group: parameters to look "
                "at, nothing to compute with");
  std::vector<int> wanted;
  for (int chunk = 0; chunk < shape.chunks; ++chunk)
    wanted.push_back(shape.stage_of(axis.rank, chunk));
  std::ranges::sort(wanted);
  TESSERA_CHECK(axis.size == shape.ranks && wanted == axis.own, Code::invalid_argument,
                fmt::format("rank {} of {} has other stages than the schedule {} gives it",
                            axis.rank, axis.size, shape.to_string()));
  TESSERA_CHECK(
      static_cast<int>(schedule.actions.size()) == shape.ranks, Code::invalid_argument,
      fmt::format("a schedule of {} lists for {} ranks", schedule.actions.size(), shape.ranks));
}

/// First and last stage need what lies in ids and targets.
nn::Batch batch_for(const nn::PipelineAxis& axis, const nn::Batch& batch, const Stream& stream) {
  return axis.has_first() || axis.has_last() ? batch.on(stream) : batch;
}

Boundary boundary_before(int stage, const nn::Batch& batch) {
  return {stage, batch.ids.shape().sizes()};
}

/// One micro-batch in one stage, from its forward to the end of its backward.
struct Pass {
  std::unique_ptr<Tape> tape;
  Tensor arrived;       // what the stage before made, until the forward
  Value input, output;  // of the output only the gradient's place once it has left
  Shape shape{0};       // of the output
  DType dtype{};
  Tensor gradient;        // of the output, until the backward
  Tensor input_gradient;  // until it has left
};

}  // namespace

struct PipelineExecutor::Links {
  StageLink link;
};

/// The state of one run.
class PipelineExecutor::Run {
 public:
  Run(PipelineExecutor& executor, std::span<const nn::Batch> batches, autograd::UnitHooks& hooks,
      const std::function<void(int)>& gradients_done)
      : executor_(executor),
        network_(executor.network_),
        link_(executor.links_->link),
        batches_(batches),
        hooks_(hooks),
        gradients_done_(gradients_done) {}

  void execute(const PipelineAction& action);
  /// Before a computation, of the actions behind it: what arrives meanwhile, if it can.
  void expect(std::span<const PipelineAction> next);
  std::vector<autograd::Loss> losses() && { return std::move(losses_); }
  int peak() const { return peak_; }

 private:
  const nn::PipelineAxis& axis() const { return network_.pipeline(); }
  bool owns(int stage) const { return std::ranges::find(axis().own, stage) != axis().own.end(); }
  bool is_last(int stage) const { return stage + 1 == axis().stages(); }
  const nn::Batch& batch(const PipelineAction& action) const {
    return batches_[static_cast<std::size_t>(action.micro_batch)];
  }
  Pass& pass(int stage, int micro_batch) { return passes_[{stage, micro_batch}]; }
  Pass& pass(const PipelineAction& action) { return pass(action.stage, action.micro_batch); }

  void forward(const PipelineAction& action);
  void begin_backward(Pass& pass, const PipelineAction& action);
  void end_backward_input(Pass& pass, const PipelineAction& action);
  void end(const PipelineAction& action);

  PipelineExecutor& executor_;
  nn::Network& network_;
  StageLink& link_;
  std::span<const nn::Batch> batches_;
  autograd::UnitHooks& hooks_;
  const std::function<void(int)>& gradients_done_;
  std::map<std::pair<int, int>, Pass> passes_;  // by stage and micro-batch
  std::vector<autograd::Loss> losses_;
  int live_ = 0, peak_ = 0;
};

void PipelineExecutor::Run::forward(const PipelineAction& action) {
  const int stage = action.stage;
  Pass& now = pass(action);
  peak_ = std::max(peak_, ++live_);
  if (stage > 0) now.input = Value::leaf(std::move(now.arrived));
  now.tape = std::make_unique<Tape>(Recording::on, &hooks_, executor_.stream_);
  if (executor_.schedule_.shape.splits_backward()) now.tape->split_backward();
  const nn::Batch moved = batch_for(axis(), batch(action), executor_.stream_);
  nn::StageOutput output = network_.forward_stage(*now.tape, stage, moved, now.input);
  now.input.take_data();
  if (is_last(stage)) {
    losses_.push_back(std::move(output.loss));
    return;
  }
  now.output = std::move(output.value);
  now.shape = now.output.shape();
  now.dtype = now.output.data().dtype();
  if (owns(stage + 1)) pass(stage + 1, action.micro_batch).arrived = now.output.take_data();
}

/// Where nothing depends on the stage's input, what arrived is not asked for.
void PipelineExecutor::Run::begin_backward(Pass& now, const PipelineAction& action) {
  if (is_last(action.stage)) return;
  Tensor gradient = std::move(now.gradient);
  if (now.output.requires_gradient())
    now.output.slot()->add(executor_.stream_, std::move(gradient));
}

void PipelineExecutor::Run::end_backward_input(Pass& now, const PipelineAction& action) {
  if (action.stage == 0) return;
  const auto& slot = now.input.slot();
  TESSERA_CHECK(!slot->empty(), Code::not_supported,
                fmt::format("the input of stage {} got no gradient: are all layers behind it "
                            "frozen? Train without a pipeline",
                            action.stage));
  now.input_gradient = slot->take();
  if (owns(action.stage - 1))
    pass(action.stage - 1, action.micro_batch).gradient = std::move(now.input_gradient);
}

void PipelineExecutor::Run::end(const PipelineAction& action) {
  pass(action).tape.reset();
  --live_;
  gradients_done_(action.stage);
}

void PipelineExecutor::Run::execute(const PipelineAction& action) {
  Pass& now = pass(action);
  switch (action.kind) {
    case ActionKind::forward:
      return forward(action);
    case ActionKind::backward:
      begin_backward(now, action);
      now.tape->backward();
      end_backward_input(now, action);
      return end(action);
    case ActionKind::backward_input:
      begin_backward(now, action);
      now.tape->backward_input();
      return end_backward_input(now, action);
    case ActionKind::backward_weight:
      now.tape->backward_weight();
      return end(action);
    case ActionKind::send_activation:
      return link_.send_activation(now.output.take_data(), action.peer,
                                   boundary_before(action.stage + 1, batch(action)));
    case ActionKind::receive_activation:
      now.arrived =
          link_.receive_activation(action.peer, boundary_before(action.stage, batch(action)));
      return;
    case ActionKind::send_gradient:
      return link_.send(std::move(now.input_gradient), action.peer);
    case ActionKind::receive_gradient:
      now.gradient = link_.receive(action.peer, now.shape, now.dtype);
      return;
  }
}

void PipelineExecutor::Run::expect(std::span<const PipelineAction> next) {
  for (const PipelineAction& action : next) {
    if (action.computes()) return;
    if (action.kind == ActionKind::receive_activation &&
        !link_.expect_activation(action.peer, boundary_before(action.stage, batch(action))))
      return;
    if (action.kind != ActionKind::receive_gradient) continue;
    const Pass& now = pass(action);
    if (!now.tape) return;  // its forward, which says the shape, is the computation itself
    link_.expect(action.peer, now.shape, now.dtype);
  }
}

PipelineExecutor::PipelineExecutor(nn::Network& network, PipelineSchedule schedule,
                                   const Stream& stream)
    : network_(network), schedule_(std::move(schedule)), stream_(stream) {
  check_stages(network, schedule_);
  check_pipeline_schedule(schedule_);
  // Not make_unique: links cannot be moved.
  links_.reset(new Links{{network.pipeline(), stream}});
}

PipelineExecutor::~PipelineExecutor() = default;

std::vector<autograd::Loss> PipelineExecutor::run(
    std::span<const nn::Batch> micro_batches, autograd::UnitHooks& hooks,
    const std::function<void(int stage)>& gradients_done) {
  TESSERA_CHECK(static_cast<int>(micro_batches.size()) == schedule_.shape.micro_batches,
                Code::invalid_argument,
                fmt::format("{} micro-batches for a schedule of {}", micro_batches.size(),
                            schedule_.shape.micro_batches));
  Run run(*this, micro_batches, hooks, gradients_done);
  record_ = {};
  const Timer timer;
  const std::span<const PipelineAction> actions =
      schedule_.actions[static_cast<std::size_t>(network_.pipeline().rank)];
  for (std::size_t i = 0; i < actions.size(); ++i) {
    const PipelineAction& action = actions[i];
    if (action.computes()) run.expect(actions.subspan(i + 1));
    const ScopedSpan span = record_span(action);
    const double begin = timer.seconds();
    run.execute(action);
    record_.entries.push_back({action, begin, timer.seconds()});
  }
  links_->link.finish();
  record_.peak_activations = run.peak();
  return std::move(run).losses();
}

autograd::Loss evaluate_stages(nn::Network& network, autograd::UnitHooks& hooks,
                               const nn::Batch& batch, const Stream& stream) {
  const nn::PipelineAxis& axis = network.pipeline();
  TESSERA_CHECK(axis.group != nullptr, Code::invalid_argument,
                "this network has the stages of a pipeline without its group");
  StageLink link(axis, stream);
  const nn::Batch moved = batch_for(axis, batch, stream);
  nn::StageOutput output;
  for (const int stage : axis.own) {
    if (stage > 0 && !output.value.data())
      output.value =
          Value(link.receive_activation(axis.rank_of(stage - 1), boundary_before(stage, batch)));
    Tape tape(Recording::off, &hooks, stream);
    output = network.forward_stage(tape, stage, moved, output.value);
    const bool stays = std::ranges::find(axis.own, stage + 1) != axis.own.end();
    if (stage + 1 < axis.stages() && !stays)
      link.send_activation(output.value.take_data(), axis.rank_of(stage + 1),
                           boundary_before(stage + 1, batch));
  }
  return output.loss;
}

}  // namespace tessera::parallel
