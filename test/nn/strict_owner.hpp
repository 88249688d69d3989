// SPDX-License-Identifier: Apache-2.0
// Owns a model's parameters and attaches them only while their unit is in use.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tessera/base/dtype.hpp"
#include "tessera/base/random.hpp"
#include "tessera/nn/model.hpp"

namespace tessera::nn {

/// Values and gradients are handed out as UnitHooks promises and taken away in between, so that any
/// use outside fails. Keeps a diary of the calls.
class StrictOwner : public autograd::UnitHooks {
 public:
  StrictOwner(Network& model, DType gradient_type) : model_(model) {
    for (const NamedParameter& named : model.parameters()) {
      values_.emplace_back(named.parameter->shape(), model.options().dtype, Device{},
                           Purpose::parameters);
      gradients_.emplace_back(named.parameter->shape(), gradient_type, Device{},
                              Purpose::gradients);
    }
  }

  void initialize(std::uint64_t seed) {
    const std::vector<NamedParameter> all = model_.parameters();
    for (std::size_t i = 0; i < all.size(); ++i) {
      const std::int64_t count = values_[i].numel();
      std::vector<float> start(static_cast<std::size_t>(count));
      nn::initialize(*all[i].parameter, all[i].name, seed, 0, count, start.data());
      convert(start.data(), DType::fp32, values_[i].data(), values_[i].dtype(), start.size());
    }
  }

  /// Before each micro-batch.
  void clear_gradients() {
    for (const NamedParameter& named : model_.parameters())
      named.parameter->gradient_written = false;
    for (const Tensor& gradient : gradients_) std::memset(gradient.data(), 0xff, gradient.bytes());
  }

  void acquire(int unit, autograd::Phase phase) override {
    const bool backward = phase == autograd::Phase::backward;
    diary.push_back(fmt::format("{}{}", backward ? "+B" : "+F", unit));
    for_each(unit, [&](Parameter& parameter, std::size_t i) {
      parameter.value = values_[i];
      if (backward) parameter.gradient = gradients_[i];
    });
  }
  void release(int unit, autograd::Phase phase) override {
    diary.push_back(fmt::format("{}{}", phase == autograd::Phase::backward ? "-B" : "-F", unit));
    for_each(unit, [&](Parameter& parameter, std::size_t) { parameter.value = {}; });
  }
  void gradients_ready(int unit) override {
    diary.push_back(fmt::format("!{}", unit));
    for_each(unit, [&](Parameter& parameter, std::size_t) {
      EXPECT_EQ(parameter.gradient_written, parameter.trainable);
      parameter.gradient = {};
    });
  }

  Tensor& value(std::size_t parameter) { return values_[parameter]; }
  Tensor& gradient(std::size_t parameter) { return gradients_[parameter]; }
  std::size_t size() const { return values_.size(); }

  std::vector<std::string> diary;

 private:
  template <typename F>
  void for_each(int unit, F f) {
    std::size_t index = 0;
    for (int u = 0; u < unit; ++u)
      index += model_.units()[static_cast<std::size_t>(u)].parameters.size();
    for (const NamedParameter& named : model_.units()[static_cast<std::size_t>(unit)].parameters)
      f(*named.parameter, index++);
  }

  Network& model_;
  std::vector<Tensor> values_, gradients_;
};

/// Random ids and the targets that follow them; one target in seven is missing.
inline Batch random_batch(std::int64_t rows, std::int64_t positions, std::int64_t vocabulary,
                          std::uint64_t seed) {
  Batch batch;
  batch.ids = Tensor(Shape{rows, positions}, DType::int32, {}, Purpose::workspace);
  batch.targets = Tensor(Shape{rows, positions}, DType::int32, {}, Purpose::workspace);
  const RandomStream random(seed, 1);
  const auto draw = [&](std::int64_t i) {
    return static_cast<std::int32_t>(random.bits(static_cast<std::uint64_t>(i)) %
                                     static_cast<std::uint32_t>(vocabulary));
  };
  for (std::int64_t i = 0; i < rows * positions; ++i) {
    batch.ids.as<std::int32_t>()[i] = draw(i);
    batch.targets.as<std::int32_t>()[i] = i % 7 == 6 ? -100 : draw(i + 1);
  }
  return batch;
}

}  // namespace tessera::nn
