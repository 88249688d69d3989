// SPDX-License-Identifier: Apache-2.0
#include "tessera/autograd/losses.hpp"

#include <memory>
#include <utility>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/kernels/cross_entropy.hpp"
#include "tessera/kernels/elementwise.hpp"

namespace tessera::autograd {
namespace {

/// The gradient's place, where the backward pass wants one.
Tensor make_gradient(const Value& value) {
  if (!value.requires_gradient()) return {};
  return Tensor(value.shape(), value.data().dtype(), value.data().device());
}

Loss finish(Tape& tape, const char* name, const Value& value, Tensor gradient, double sum) {
  if (tape.recording() && gradient && value.requires_gradient()) {
    tape.record({.name = name,
                 .output = nullptr,
                 .backward_input = [gradient = std::move(gradient), slot = value.slot(),
                                    stream = tape.stream()](
                                       Tensor&) mutable { slot->add(stream, std::move(gradient)); },
                 .backward_weight = {}});
  }
  auto state = std::make_shared<Loss::State>();
  state->known = true;
  state->sum = sum;
  return Loss(state);
}

}  // namespace

Loss element_loss(Tape& tape, const Value& prediction, const Tensor& targets,
                  kernels::ElementLossKind kind, float delta, float gradient_scale) {
  TESSERA_CHECK(
      targets.dtype() == DType::fp32 && targets.numel() == prediction.data().numel(),
      Code::invalid_argument,
      fmt::format("{} targets of shape {} for outputs of shape {}", to_string(targets.dtype()),
                  targets.shape().to_string(), prediction.shape().to_string()));
  Tensor gradient = make_gradient(prediction);
  const double sum = kernels::element_loss(tape.stream(), {.prediction = prediction.data().data(),
                                                           .target = targets.as<float>(),
                                                           .dprediction = gradient.data(),
                                                           .scale = gradient_scale,
                                                           .count = targets.numel(),
                                                           .kind = kind,
                                                           .delta = delta,
                                                           .dtype = prediction.data().dtype()});
  return finish(tape, "element_loss", prediction, std::move(gradient), sum);
}

Loss cross_entropy_loss(Tape& tape, const Value& logits, const Tensor& targets,
                        float gradient_scale) {
  const Stream& stream = tape.stream();
  TESSERA_CHECK(stream.device().is_cpu(), Code::not_supported,
                "cross_entropy_loss is not available on GPUs yet; use the CPU");
  const std::int64_t classes = logits.shape().rank() > 0 ? logits.shape()[-1] : 0;
  TESSERA_CHECK(
      targets.dtype() == DType::int32 && classes > 0 &&
          targets.numel() * classes == logits.data().numel(),
      Code::invalid_argument,
      fmt::format("{} targets of shape {} for logits of shape {}", to_string(targets.dtype()),
                  targets.shape().to_string(), logits.shape().to_string()));
  Tensor gradient = make_gradient(logits);
  const Tensor losses(Shape{targets.numel()}, DType::fp32, {}, Purpose::workspace);
  kernels::cross_entropy(stream, {.logits = logits.data().data(),
                                  .targets = targets.as<std::int32_t>(),
                                  .losses = losses.as<float>(),
                                  .dlogits = gradient.data(),
                                  .scale = gradient_scale,
                                  .rows = targets.numel(),
                                  .columns = classes,
                                  .valid_columns = classes,
                                  .dtype = logits.data().dtype()});
  double sum = 0;
  for (std::int64_t row = 0; row < targets.numel(); ++row)
    sum += static_cast<double>(losses.as<float>()[row]);
  return finish(tape, "cross_entropy_loss", logits, std::move(gradient), sum);
}

Loss given_loss(Tape& tape, const Value& outputs,
                const std::function<double(const Tensor&, const Tensor&)>& function,
                float gradient_scale) {
  const Stream& stream = tape.stream();
  TESSERA_CHECK(stream.device().is_cpu(), Code::not_supported,
                "losses of a program's own are not available on GPUs yet; use the CPU");
  const Tensor gradient = Tensor::zeros(outputs.shape(), DType::fp32);
  const double sum = function(outputs.data().to(DType::fp32), gradient);
  kernels::scale(stream, gradient.data(), gradient_scale, gradient.data(), gradient.numel(),
                 DType::fp32);
  return finish(tape, "given_loss", outputs, gradient.to(outputs.data().dtype()), sum);
}

}  // namespace tessera::autograd
