// SPDX-License-Identifier: Apache-2.0
// A small network and its samples, for tests of networks through the C interface.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "c/support.hpp"
#include "support/test_device.hpp"

namespace tessera::c::testing {

inline std::string mlp(const std::string& more = "", int stage = 1) {
  return "model: {model_type: mlp, layer_sizes: [2, 24, 24, 1], activation: tanh" + more +
         "}\n"
         "engine:\n"
         "  optimizer: {type: Adam, params: {lr: 0.01}}\n"
         "  zero_optimization: {stage: " +
         std::to_string(stage) + "}\n";
}

/// With the line that puts it on the device under test.
inline std::string on_test_device(const std::string& config) {
  return (tessera::testing::on_cuda() ? "device: cuda\n" : "") + config;
}

inline tessera_network* make(const World& world, const std::string& config) {
  tessera_network_options options{};
  options.struct_size = sizeof options;
  const std::string text = on_test_device(config);
  options.config = text.c_str();
  tessera_network* network = nullptr;
  EXPECT_OK(tessera_network_create(world.runtime, &options, &network));
  return network;
}

/// Samples of y = sin(2 a) b on a grid that ranks share out: rank r has every size-th.
struct Samples {
  explicit Samples(const World& world, double scale = 1, double offset = 0) {
    for (int i = 0; i < 256; ++i) {
      if (i % world.size != world.rank) continue;
      const double a = (i % 16) / 8.0 - 1, b = (i / 16) / 8.0 - 1;  // NOLINT
      x.push_back(static_cast<float>(a * scale + offset));
      x.push_back(static_cast<float>(b * scale + offset));
      y.push_back(static_cast<float>(scale * std::sin(2 * a) * b + offset));
    }
    count = static_cast<std::int64_t>(y.size());
  }
  tessera_array inputs() { return array_of(x.data(), {count, 2}); }
  tessera_array targets() { return array_of(y.data(), {count, 1}); }
  std::int64_t count = 0;
  std::vector<float> x, y;
};

inline double train(tessera_network* network, Samples& samples, int steps) {
  const tessera_array inputs = samples.inputs(), targets = samples.targets();
  double loss = -1;
  for (int step = 0; step < steps; ++step)
    EXPECT_OK(tessera_network_train_step(network, &inputs, &targets, &loss));
  return loss;
}

inline std::vector<float> predict(tessera_network* network, Samples& samples) {
  std::vector<float> values(static_cast<std::size_t>(samples.count));
  const tessera_array inputs = samples.inputs();
  const tessera_array outputs = array_of(values.data(), {samples.count, 1});
  EXPECT_OK(tessera_network_predict(network, &inputs, &outputs));
  return values;
}

}  // namespace tessera::c::testing
