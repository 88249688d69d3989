// SPDX-License-Identifier: Apache-2.0
#include "engine/recorded_pass.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/timeline.hpp"
#include "tessera/device/cuda.hpp"
#include "tessera/kernels/gemm.hpp"
#include "tessera/kernels/pass_variables.hpp"

namespace tessera::engine {

/// Notes which units are ready instead of telling the optimizer: communication is no part of a
/// graph.
class RecordedPass::Hooks final : public autograd::UnitHooks {
 public:
  Hooks(const nn::Network& model, parallel::UnitBinding& binding, std::vector<Ready>& ready)
      : model_(model), binding_(binding), ready_(ready) {}

  void acquire(int unit, autograd::Phase phase) override { binding_.attach(unit, phase); }
  void release(int unit, autograd::Phase phase) override { binding_.release(unit, phase); }
  void gradients_ready(int unit) override {
    Ready& done = ready_.emplace_back(Ready{unit, {}});
    for (const auto& [name, parameter] :
         model_.units()[static_cast<std::size_t>(unit)].parameters) {
      done.written.push_back(parameter->gradient_written);
      parameter->gradient = {};
    }
  }

 private:
  const nn::Network& model_;
  parallel::UnitBinding& binding_;
  std::vector<Ready>& ready_;
};

void check_recordable(const nn::Network& model, const zero::Options& options) {
  const auto refuse = [](const std::string& why) {
    fail(Code::not_supported, "run.cuda_graph: " + why);
  };
  if (options.device.is_cpu())
    refuse("this run computes on the CPU; graphs are for GPUs (device: cuda)");
  if (options.stage > 1)
    refuse(fmt::format(
        "graphs need gradients and parameters that keep their places, and stage {} does not keep "
        "them; use engine.zero_optimization.stage 0 or 1, or leave run.cuda_graph out",
        options.stage));
  if (!model.can_be_recorded())
    refuse(
        "this model's pass is not work of its GPU alone (cpu_checkpointing), or is shared by a "
        "tensor, sequence or pipeline axis; leave run.cuda_graph out");
}

RecordedPass::RecordedPass(nn::Network& model, zero::PartitionedOptimizer& optimizer,
                           parallel::UnitBinding& binding, const Stream& stream)
    : model_(model), optimizer_(optimizer), binding_(binding), stream_(stream), arena_(stream) {
  model.bring_constants(stream);
}

autograd::PassMemory RecordedPass::Shape::memory() const {
  return {variables.as<const kernels::PassVariables>(), losses.as<float>()};
}

bool RecordedPass::is_of(const Shape& shape, const nn::Batch& batch) const {
  return shape.accumulates == optimizer_.gradients_accumulate() &&
         shape.ids.shape() == batch.ids.shape();
}

bool RecordedPass::takes(const nn::Batch& batch) const {
  return shapes_.size() < kMostShapes ||
         std::ranges::any_of(shapes_, [&](const Shape& shape) { return is_of(shape, batch); });
}

RecordedPass::Shape& RecordedPass::shape_of(const nn::Batch& batch) {
  const auto found =
      std::ranges::find_if(shapes_, [&](const Shape& shape) { return is_of(shape, batch); });
  if (found != shapes_.end()) return *found;
  const Device device = stream_.device();
  Shape& added = shapes_.emplace_back();
  added.accumulates = optimizer_.gradients_accumulate();
  added.ids = Tensor(batch.ids.shape(), batch.ids.dtype(), device);
  added.targets = Tensor(batch.targets.shape(), batch.targets.dtype(), device);
  added.losses = Tensor(batch.targets.shape(), DType::fp32, device, Purpose::workspace);
  added.variables = allocate(sizeof(kernels::PassVariables), device, Purpose::workspace);
  return added;
}

void RecordedPass::fill(const Shape& shape, const nn::Batch& batch) {
  const kernels::PassVariables variables{batch.step, batch.first_row, batch.gradient_scale};
  stream_.copy(shape.variables.data(), &variables, sizeof(variables));
  stream_.copy(shape.ids.data(), batch.ids.data(), batch.ids.bytes());
  stream_.copy(shape.targets.data(), batch.targets.data(), batch.targets.bytes());
}

void RecordedPass::run_pass(Shape& shape, const nn::Batch& batch) {
  const Arena::Scope scope(arena_);
  const autograd::PassMemory memory = shape.memory();
  nn::Batch fixed = batch;
  fixed.ids = shape.ids;
  fixed.targets = shape.targets;
  fixed.memory = &memory;
  shape.ready.clear();
  Hooks hooks(model_, binding_, shape.ready);
  autograd::Tape tape(autograd::Recording::on, &hooks, stream_);
  model_.forward_loss(tape, fixed);
  tape.backward();
}

void RecordedPass::record(Shape& shape, const nn::Batch& batch) {
  const std::int64_t before = kernels::flop_count();
  Capture capture(stream_);
  run_pass(shape, batch);
  shape.graph = capture.finish();
  shape.flops = kernels::flop_count() - before;
  kernels::add_flops(-shape.flops);  // nothing has run yet
}

void RecordedPass::hand_over(const Shape& shape) {
  for (const Ready& done : shape.ready) {
    optimizer_.attach_gradients(done.unit);
    optimizer_.gradients_ready(done.unit, done.written);
  }
}

autograd::Loss RecordedPass::run(const nn::Batch& batch) {
  const StreamScope scope(stream_);
  const ScopedSpan span(SpanKind::backward, "forward and backward");
  Shape& shape = shape_of(batch);
  fill(shape, batch);
  // The first run is what chooses algorithms, makes handles and fills the arena.
  if (shape.runs == 1) record(shape, batch);
  if (shape.runs++ == 0) {
    run_pass(shape, batch);
  } else {
    shape.graph.launch(stream_);
    kernels::add_flops(shape.flops);
  }
  hand_over(shape);
  return autograd::read_losses(stream_, shape.losses.as<float>(), shape.losses.numel());
}

}  // namespace tessera::engine
