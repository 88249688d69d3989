// SPDX-License-Identifier: Apache-2.0
#include "c/callbacks.hpp"

#include <cstddef>

#include "tessera/device/cuda.hpp"

#include "c/guard.hpp"

namespace tessera::c {
namespace {

float* numbers(const Tensor& tensor) {
  return tensor ? tensor.as<float>() : nullptr;
}

/// A tensor where the caller's function wants it, for one call.
class Argument {
 public:
  Argument(const Tensor& tensor, CallbackMemory memory) : tensor_(tensor), seen_(tensor) {
    if (tensor && memory == CallbackMemory::host_copies) seen_ = tensor.on_host(stream());
  }
  float* get() const { return numbers(seen_); }
  /// What the function wrote, to where it belongs.
  void store() const {
    if (seen_ && seen_.device() != tensor_.device())
      stream().copy(tensor_.data(), seen_.data(), seen_.bytes());
  }

 private:
  Stream stream() const { return current_stream(tensor_.device()); }

  Tensor tensor_, seen_;
};

nn::GivenLayer given_layer(const tessera_layer* described, CallbackMemory memory) {
  const tessera_layer own = options_of(described, "tessera_layer");
  nn::GivenLayer layer{own.index, own.parameters, static_cast<float>(own.deviation), {}};
  if (own.forward != nullptr)
    layer.functions.forward = [own, memory](const Tensor& x, const Tensor& w, const Tensor& y) {
      const Argument input(x, memory), weight(w, memory), output(y, memory);
      own.forward(x.size(0), x.size(1), y.size(1), own.parameters, input.get(), weight.get(),
                  output.get(), own.user);
      output.store();
    };
  if (own.backward != nullptr)
    layer.functions.backward = [own, memory](const Tensor& x, const Tensor& w, const Tensor& dy,
                                             const Tensor& dx, const Tensor& dw) {
      const Argument input(x, memory), weight(w, memory), slope(dy, memory);
      const Argument input_slope(dx, memory), weight_slope(dw, memory);
      own.backward(x.size(0), x.size(1), dy.size(1), own.parameters, input.get(), weight.get(),
                   slope.get(), input_slope.get(), weight_slope.get(), own.user);
      input_slope.store();
      weight_slope.store();
    };
  return layer;
}

}  // namespace

// The caller's array has elements of the caller's size.
std::vector<nn::GivenLayer> given_layers(const tessera_network_options& options) {
  std::vector<nn::GivenLayer> layers;
  if (options.layer_count == 0) return layers;
  TESSERA_CHECK(options.layers != nullptr && options.layer_count > 0, Code::invalid_argument,
                fmt::format("tessera_network_options has {} layers, and the array is {}",
                            options.layer_count, options.layers != nullptr ? "there" : "NULL"));
  const std::size_t size = size_of_struct(*options.layers, "tessera_layer");
  const auto* bytes = reinterpret_cast<const std::byte*>(options.layers);
  for (int i = 0; i < options.layer_count; ++i)
    layers.push_back(given_layer(
        reinterpret_cast<const tessera_layer*>(bytes + static_cast<std::size_t>(i) * size),
        callback_memory(options)));
  return layers;
}

engine::Learner::LossFunction given_loss(tessera_loss_function function, void* user,
                                         CallbackMemory memory) {
  TESSERA_CHECK(function != nullptr, Code::invalid_argument, "`function` is NULL");
  return [=](std::int64_t first, const Tensor& outputs, const Tensor& gradients) {
    const Argument values(outputs, memory), slopes(gradients, memory);
    const double loss =
        function(first, outputs.size(0), outputs.size(1), values.get(), slopes.get(), user);
    slopes.store();
    return loss;
  };
}

}  // namespace tessera::c
