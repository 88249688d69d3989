// SPDX-License-Identifier: Apache-2.0
#include "tessera/autograd/given_layer.hpp"

#include <utility>

#include "tessera/autograd/profiler.hpp"
#include "tessera/base/error.hpp"
#include "tessera/kernels/elementwise.hpp"

#include "autograd/weight_gradient.hpp"

namespace tessera::autograd {
namespace {

struct GivenLayer {
  Tensor x;
  Weight* weight;
  std::int64_t outputs;
  LayerFunctions functions;
  Stream stream;

  Tensor parameters() const {
    if (weight == nullptr) return {};
    attached_value(*weight);
    return weight->value.to(DType::fp32);
  }

  Tensor forward() const {
    const ProfileScope profile("given layer forward");
    const std::int64_t rows = x.size(0);
    const Tensor y(Shape{rows, outputs}, DType::fp32);
    if (rows > 0) functions.forward(x.to(DType::fp32), parameters(), y);
    return y.to(x.dtype());
  }

  void backward(const Tensor& dy, GradientSlot* slot) const {
    const ProfileScope profile("given layer backward");
    const Tensor dx = Tensor::zeros(x.shape(), DType::fp32), w = parameters();
    const Tensor dw = w ? Tensor::zeros(w.shape(), DType::fp32) : Tensor();
    if (x.size(0) > 0) functions.backward(x.to(DType::fp32), w, dy.to(DType::fp32), dx, dw);
    if (slot != nullptr) slot->add(stream, dx.to(x.dtype()));
    if (w && weight->trainable) write_gradient(dw);
  }

 private:
  void write_gradient(const Tensor& dw) const {
    const GradientTarget target = gradient_target(*weight);
    if (target.accumulate)
      kernels::accumulate(stream, dw.data(), DType::fp32, 1, target.data, target.dtype, dw.numel());
    else
      kernels::cast(stream, dw.data(), DType::fp32, target.data, target.dtype, dw.numel());
  }
};

}  // namespace

Value given_layer(Tape& tape, const Value& x, Weight* weight, std::int64_t outputs,
                  const LayerFunctions& functions) {
  TESSERA_CHECK(tape.stream().device().is_cpu(), Code::not_supported,
                "layers of a program's own are not available on GPUs yet; use the CPU");
  const GivenLayer layer{x.data(), weight, outputs, functions, tape.stream()};
  const bool trained = weight != nullptr && weight->trainable;
  Value y = tape.result(layer.forward(), x.requires_gradient() || trained);
  if (!y.requires_gradient()) return y;
  tape.record(
      {.name = "given_layer",
       .output = y.slot(),
       .backward_input = [layer, slot = x.slot()](Tensor& dy) { layer.backward(dy, slot.get()); },
       .backward_weight = {}});
  return y;
}

}  // namespace tessera::autograd
