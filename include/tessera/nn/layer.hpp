// SPDX-License-Identifier: Apache-2.0
// A layer of nn::Sequential, and the usual ones.
#pragma once

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "tessera/autograd/tape.hpp"
#include "tessera/kernels/activation.hpp"
#include "tessera/nn/model.hpp"
#include "tessera/nn/parameter.hpp"

namespace tessera::nn {

/// A piece of a network between two places where a pipeline may cut it. Parameters know their shape
/// only, and get memory where they are used: making layers of other ranks costs nothing.
class Layer {
 public:
  virtual ~Layer() = default;
  /// By their names inside the layer; at the same addresses as long as it lives.
  virtual std::vector<NamedParameter> parameters() { return {}; }
  /// `input` is what the layer before made of the batch, for the first layer Batch::ids. Of the
  /// batch, seed, step and first_row key dropout (training); rows and shapes may differ from batch
  /// to batch.
  virtual autograd::Value forward(autograd::Tape& tape, const autograd::Value& input,
                                  const Batch& batch) = 0;
};

/// [..., inputs] -> [..., outputs]: x W^T + b, parameters weight [outputs, inputs] and bias.
class Linear final : public Layer {
 public:
  Linear(std::int64_t inputs, std::int64_t outputs, bool bias = true);
  std::vector<NamedParameter> parameters() override;
  autograd::Value forward(autograd::Tape& tape, const autograd::Value& input,
                          const Batch& batch) override;

 private:
  Parameter weight_, bias_;
  bool has_bias_;
};

/// ids [...] int32 -> [..., columns], parameter weight [rows, columns]. Ids outside the table are
/// invalid_argument.
class Embedding final : public Layer {
 public:
  Embedding(std::int64_t rows, std::int64_t columns);
  std::vector<NamedParameter> parameters() override;
  autograd::Value forward(autograd::Tape& tape, const autograd::Value& input,
                          const Batch& batch) override;

 private:
  Parameter weight_;
};

/// Over the last dimension; parameters weight and bias [width].
class LayerNorm final : public Layer {
 public:
  explicit LayerNorm(std::int64_t width, float epsilon = 1e-5f);
  std::vector<NamedParameter> parameters() override;
  autograd::Value forward(autograd::Tape& tape, const autograd::Value& input,
                          const Batch& batch) override;

 private:
  Parameter weight_, bias_;
  float epsilon_;
};

/// In training, drops elements with this probability, the same ones whatever the mesh and the
/// micro-batches. `site` tells the dropouts of a network apart.
class Dropout final : public Layer {
 public:
  Dropout(float probability, std::uint64_t site) : probability_(probability), site_(site) {}
  autograd::Value forward(autograd::Tape& tape, const autograd::Value& input,
                          const Batch& batch) override;

 private:
  float probability_;
  std::uint64_t site_;
};

/// Whatever a function of autograd's operations makes of its input; without parameters.
class Function final : public Layer {
 public:
  using Body = std::function<autograd::Value(autograd::Tape&, const autograd::Value&)>;
  explicit Function(Body body) : body_(std::move(body)) {}
  autograd::Value forward(autograd::Tape& tape, const autograd::Value& input,
                          const Batch&) override {
    return body_(tape, input);
  }

 private:
  Body body_;
};

}  // namespace tessera::nn
