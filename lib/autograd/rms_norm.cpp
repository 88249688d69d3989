// SPDX-License-Identifier: Apache-2.0
#include "tessera/autograd/rms_norm.hpp"

#include <memory>
#include <utility>

#include <fmt/format.h>

#include "tessera/autograd/profiler.hpp"
#include "tessera/base/error.hpp"
#include "tessera/kernels/rms_norm.hpp"

#include "autograd/sum_over_group.hpp"
#include "autograd/weight_gradient.hpp"

namespace tessera::autograd {
namespace {

struct RmsNorm {
  Tensor x;
  Tensor rstd;  // undefined: not wanted
  Weight* weight;
  float epsilon;
  Communicator* group;
  std::int64_t rows, columns;
  Stream stream;

  Tensor forward() const {
    const ProfileScope profile("rms norm forward");
    Tensor y(x.shape(), x.dtype(), x.device());
    kernels::rms_norm_forward(stream, {.x = x.data(),
                                       .weight = attached_value(*weight),
                                       .y = y.data(),
                                       .rstd = rstd.as<float>(),
                                       .rows = rows,
                                       .columns = columns,
                                       .epsilon = epsilon,
                                       .dtype = x.dtype()});
    return y;
  }

  /// Where the weight's gradient has no place yet (Phase::inputs) it goes into `waiting`.
  void backward(const Tensor& dy, GradientSlot& slot, Tensor& waiting) const {
    const ProfileScope profile("rms norm backward");
    const GradientSlot::Target dx = slot.target(stream, x.shape(), x.dtype(), x.device());
    kernels::RmsNormBackward args{.dy = dy.data(),
                                  .x = x.data(),
                                  .weight = attached_value(*weight),
                                  .rstd = rstd.as<float>(),
                                  .dx = dx.tensor.data(),
                                  .accumulate_dx = dx.accumulate,
                                  .dweight = nullptr,
                                  .gradient_type = DType::fp32,
                                  .accumulate = false,
                                  .rows = rows,
                                  .columns = columns,
                                  .dtype = x.dtype()};
    const bool nowhere = weight->trainable && !weight->gradient;
    const bool partial = weight->trainable && group != nullptr;
    if (nowhere || partial) {
      waiting = Tensor(Shape{columns}, DType::fp32, x.device());
      args.dweight = waiting.data();
    } else if (weight->trainable) {
      const GradientTarget target = gradient_target(*weight);
      args.dweight = target.data;
      args.gradient_type = target.dtype;
      args.accumulate = target.accumulate;
    }
    kernels::rms_norm_backward(stream, args);
    if (partial) sum_over_group(stream, waiting, *group);
    if (!nowhere) write(std::exchange(waiting, {}));
  }

  void write(const Tensor& gradient) const {
    if (gradient) write_gradient(stream, gradient, *weight);
  }
};

}  // namespace

Value rms_norm(Tape& tape, const Value& x, Weight& weight, float epsilon, bool keep_output,
               Communicator* group) {
  attached_value(weight);
  const std::int64_t columns = weight.value.numel();
  TESSERA_CHECK(
      columns > 0 && x.shape().rank() > 0 && x.shape()[-1] == columns, Code::invalid_argument,
      fmt::format("an RMSNorm over {} columns cannot take {}", columns, x.shape().to_string()));
  const std::int64_t rows = x.data().numel() / columns;
  RmsNorm op{x.data(), {}, &weight, epsilon, group, rows, columns, tape.stream()};
  if (tape.recording()) op.rstd = Tensor(Shape{rows}, DType::fp32, op.x.device());
  Value y = tape.result(op.forward(), x.requires_gradient() || weight.trainable);
  if (!y.requires_gradient()) return y;
  // A constant input still needs somewhere to write dx: the kernel computes all at once.
  const auto slot = x.requires_gradient() ? x.slot() : std::make_shared<GradientSlot>();
  const auto waiting = std::make_shared<Tensor>();
  tape.record(
      {.name = "rms_norm",
       .output = y.slot(),
       .backward_input =
           [op, slot, waiting](Tensor& dy) { op.backward(std::exchange(dy, {}), *slot, *waiting); },
       .backward_weight = [op, waiting](const Tensor&) { op.write(*waiting); },
       .waits = false});
  if (!keep_output) y.set_rebuild([op] { return op.forward(); });
  return y;
}

}  // namespace tessera::autograd
