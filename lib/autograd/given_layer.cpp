// SPDX-License-Identifier: Apache-2.0
#include "tessera/autograd/given_layer.hpp"

#include <memory>
#include <utility>

#include "tessera/autograd/profiler.hpp"

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
    return weight->value.to(DType::fp32, stream);
  }

  Tensor forward() const {
    const ProfileScope profile("given layer forward");
    const std::int64_t rows = x.size(0);
    const Tensor y(Shape{rows, outputs}, DType::fp32, stream.device());
    if (rows > 0) {
      const Tensor seen = x.to(DType::fp32, stream), w = parameters();
      stream.synchronize();
      functions.forward(seen, w, y);
    }
    return y.to(x.dtype(), stream);
  }

  /// Returns the parameters' gradient where it has to wait (Phase::inputs).
  Tensor backward(const Tensor& dy, GradientSlot* slot) const {
    const ProfileScope profile("given layer backward");
    const Tensor dx = Tensor::zeros(x.shape(), DType::fp32, stream), w = parameters();
    const Tensor dw = w ? Tensor::zeros(w.shape(), DType::fp32, stream) : Tensor();
    if (x.size(0) > 0) {
      const Tensor seen = x.to(DType::fp32, stream), slope = dy.to(DType::fp32, stream);
      stream.synchronize();
      functions.backward(seen, w, slope, dx, dw);
    }
    if (slot != nullptr) slot->add(stream, dx.to(x.dtype(), stream));
    if (!w || !weight->trainable) return {};
    if (!weight->gradient) return dw;
    write_gradient(stream, dw, *weight);
    return {};
  }
};

}  // namespace

Value given_layer(Tape& tape, const Value& x, Weight* weight, std::int64_t outputs,
                  const LayerFunctions& functions) {
  const GivenLayer layer{x.data(), weight, outputs, functions, tape.stream()};
  const bool trained = weight != nullptr && weight->trainable;
  Value y = tape.result(layer.forward(), x.requires_gradient() || trained);
  if (!y.requires_gradient()) return y;
  const auto waiting = std::make_shared<Tensor>();
  tape.record({.name = "given_layer",
               .output = y.slot(),
               .backward_input =
                   [layer, waiting, slot = x.slot()](Tensor& dy) {
                     *waiting = layer.backward(std::exchange(dy, {}), slot.get());
                   },
               .backward_weight =
                   [stream = layer.stream, waiting, weight](const Tensor&) {
                     if (*waiting) write_gradient(stream, *waiting, *weight);
                   },
               .waits = false});
  return y;
}

}  // namespace tessera::autograd
