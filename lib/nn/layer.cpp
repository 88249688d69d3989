// SPDX-License-Identifier: Apache-2.0
#include "tessera/nn/layer.hpp"

#include <algorithm>
#include <cmath>
#include <span>

#include <fmt/format.h>

#include "tessera/autograd/dropout.hpp"
#include "tessera/autograd/embedding.hpp"
#include "tessera/autograd/layer_norm.hpp"
#include "tessera/autograd/linear.hpp"
#include "tessera/base/error.hpp"
#include "tessera/base/random.hpp"

namespace tessera::nn {

using autograd::Tape;
using autograd::Value;
using Kind = Initialization::Kind;

// LeCun et al. (1998).
Linear::Linear(std::int64_t inputs, std::int64_t outputs, bool bias)
    : weight_(Shape{outputs, inputs},
              {Kind::normal, static_cast<float>(1 / std::sqrt(static_cast<double>(inputs)))}),
      bias_(Shape{outputs}, {Kind::zeros}),
      has_bias_(bias) {}

std::vector<NamedParameter> Linear::parameters() {
  if (!has_bias_) return {{"weight", &weight_}};
  return {{"weight", &weight_}, {"bias", &bias_}};
}

Value Linear::forward(Tape& tape, const Value& input, const Batch&) {
  return autograd::linear(tape, input, weight_, has_bias_ ? &bias_ : nullptr,
                          autograd::WeightLayout::out_in);
}

// As GPT-2 has it.
Embedding::Embedding(std::int64_t rows, std::int64_t columns)
    : weight_(Shape{rows, columns}, {Kind::normal, 0.02f}) {}

std::vector<NamedParameter> Embedding::parameters() {
  return {{"weight", &weight_}};
}

Value Embedding::forward(Tape& tape, const Value& input, const Batch&) {
  const Tensor& ids = input.data();
  const std::int64_t rows = weight_.shape()[0];
  TESSERA_CHECK(ids.dtype() == DType::int32, Code::invalid_argument,
                fmt::format("an embedding of {} instead of int32", to_string(ids.dtype())));
  if (ids.device().is_cpu())
    for (const std::int32_t id :
         std::span(ids.as<std::int32_t>(), static_cast<std::size_t>(ids.numel())))
      TESSERA_CHECK(id >= 0 && id < rows, Code::invalid_argument,
                    fmt::format("id {} outside of a table of {} rows", id, rows));
  return autograd::embedding(tape, weight_, ids);
}

LayerNorm::LayerNorm(std::int64_t width, float epsilon)
    : weight_(Shape{width}, {Kind::ones}), bias_(Shape{width}, {Kind::zeros}), epsilon_(epsilon) {}

std::vector<NamedParameter> LayerNorm::parameters() {
  return {{"weight", &weight_}, {"bias", &bias_}};
}

Value LayerNorm::forward(Tape& tape, const Value& input, const Batch&) {
  return autograd::layer_norm(tape, input, weight_, bias_, epsilon_);
}

Value Dropout::forward(Tape& tape, const Value& input, const Batch& batch) {
  if (!batch.training || probability_ == 0) return input;
  const std::int64_t rows = std::max<std::int64_t>(1, input.shape()[0]);
  return autograd::dropout(tape, input,
                           {.probability = probability_,
                            .seed = batch.seed,
                            .stream = mix(batch.step, site_),
                            .offset = batch.first_row * (input.shape().numel() / rows)});
}

}  // namespace tessera::nn
