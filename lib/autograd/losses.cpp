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

Buffer make_losses(const Stream& stream, std::int64_t count, DType dtype) {
  return allocate(static_cast<std::size_t>(count) * size_of(dtype), stream.device(),
                  Purpose::workspace);
}

void record(Tape& tape, const char* name, const Value& value, Tensor gradient) {
  if (!tape.recording() || !gradient || !value.requires_gradient()) return;
  tape.record({.name = name,
               .output = nullptr,
               .backward_input = [gradient = std::move(gradient), slot = value.slot(),
                                  stream = tape.stream()](
                                     Tensor&) mutable { slot->add(stream, std::move(gradient)); },
               .backward_weight = {}});
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
  const std::int64_t blocks = ceil_divide(targets.numel(), kernels::kLossBlock);
  Buffer sums = make_losses(tape.stream(), blocks, DType::fp64);
  kernels::element_loss(tape.stream(), {.prediction = prediction.data().data(),
                                        .target = targets.as<float>(),
                                        .sums = sums.as<double>(),
                                        .dprediction = gradient.data(),
                                        .scale = gradient_scale,
                                        .count = targets.numel(),
                                        .kind = kind,
                                        .delta = delta,
                                        .dtype = prediction.data().dtype()});
  record(tape, "element_loss", prediction, std::move(gradient));
  return read_losses(tape.stream(), std::move(sums), blocks, DType::fp64);
}

Loss cross_entropy_loss(Tape& tape, const Value& logits, const Tensor& targets,
                        float gradient_scale) {
  const std::int64_t classes = logits.shape().rank() > 0 ? logits.shape()[-1] : 0;
  TESSERA_CHECK(
      targets.dtype() == DType::int32 && classes > 0 &&
          targets.numel() * classes == logits.data().numel(),
      Code::invalid_argument,
      fmt::format("{} targets of shape {} for logits of shape {}", to_string(targets.dtype()),
                  targets.shape().to_string(), logits.shape().to_string()));
  Tensor gradient = make_gradient(logits);
  Buffer losses = make_losses(tape.stream(), targets.numel(), DType::fp32);
  kernels::cross_entropy(tape.stream(), {.logits = logits.data().data(),
                                         .targets = targets.as<std::int32_t>(),
                                         .losses = losses.as<float>(),
                                         .dlogits = gradient.data(),
                                         .scale = gradient_scale,
                                         .rows = targets.numel(),
                                         .columns = classes,
                                         .valid_columns = classes,
                                         .dtype = logits.data().dtype()});
  record(tape, "cross_entropy_loss", logits, std::move(gradient));
  return read_losses(tape.stream(), std::move(losses), targets.numel(), DType::fp32);
}

Loss given_loss(Tape& tape, const Value& outputs,
                const std::function<double(const Tensor&, const Tensor&)>& function,
                float gradient_scale) {
  const Stream& stream = tape.stream();
  const Tensor gradient = Tensor::zeros(outputs.shape(), DType::fp32, stream);
  const Tensor seen = outputs.data().to(DType::fp32, stream);
  stream.synchronize();
  auto state = std::make_shared<Loss::State>();
  state->known = true;
  state->sum = function(seen, gradient);
  kernels::scale(stream, gradient.data(), gradient_scale, gradient.data(), gradient.numel(),
                 DType::fp32);
  record(tape, "given_loss", outputs, gradient.to(outputs.data().dtype(), stream));
  return Loss(state);
}

}  // namespace tessera::autograd
