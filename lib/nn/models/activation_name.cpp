// SPDX-License-Identifier: Apache-2.0
#include "nn/models/activation_name.hpp"

#include <vector>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/nearest_name.hpp"

namespace tessera::nn {

kernels::Activation parse_activation(const std::string& key, const std::string& name) {
  static const std::vector<std::string> known = {
      "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu", "silu", "swish", "relu", "tanh"};
  if (name == "gelu_new" || name == "gelu_fast" || name == "gelu_pytorch_tanh")
    return kernels::Activation::gelu_tanh;
  if (name == "gelu") return kernels::Activation::gelu;
  if (name == "silu" || name == "swish") return kernels::Activation::silu;
  if (name == "relu") return kernels::Activation::relu;
  if (name == "tanh") return kernels::Activation::tanh;
  fail(Code::invalid_config,
       fmt::format("model.{} '{}' is unknown{}; there are gelu_new, gelu, silu, relu and tanh", key,
                   name, did_you_mean(name, known)));
}

}  // namespace tessera::nn
