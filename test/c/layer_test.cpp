// SPDX-License-Identifier: Apache-2.0
// Networks with layers that the caller computes.
#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "tessera/base/cpu_features.hpp"

#include "c/network_support.hpp"
#include "support/kernel_testing.hpp"
#include "support/scoped_variable.hpp"

namespace tessera::c::testing {
namespace {

/// A linear layer as a caller would write it: w is [outputs, inputs], then the bias.
void linear_forward(std::int64_t samples, std::int64_t inputs, std::int64_t outputs, std::int64_t,
                    const float* x, const float* w, float* y, void* user) {
  ++*static_cast<int*>(user);
  for (std::int64_t s = 0; s < samples; ++s)
    for (std::int64_t o = 0; o < outputs; ++o) {
      float sum = w[outputs * inputs + o];
      for (std::int64_t i = 0; i < inputs; ++i) sum += w[o * inputs + i] * x[s * inputs + i];
      y[s * outputs + o] = sum;
    }
}
void linear_backward(std::int64_t samples, std::int64_t inputs, std::int64_t outputs, std::int64_t,
                     const float* x, const float* w, const float* dy, float* dx, float* dw, void*) {
  for (std::int64_t s = 0; s < samples; ++s)
    for (std::int64_t o = 0; o < outputs; ++o) {
      const float d = dy[s * outputs + o];
      dw[outputs * inputs + o] += d;
      for (std::int64_t i = 0; i < inputs; ++i) {
        dx[s * inputs + i] += d * w[o * inputs + i];
        dw[o * inputs + i] += d * x[s * inputs + i];
      }
    }
}

// A product of the two inputs, which has no parameters: 2 numbers to 2.
void product_forward(std::int64_t samples, std::int64_t, std::int64_t, std::int64_t, const float* x,
                     const float*, float* y, void*) {
  for (std::int64_t s = 0; s < samples; ++s) {
    y[2 * s] = x[2 * s];
    y[2 * s + 1] = x[2 * s] * x[2 * s + 1];
  }
}
void product_backward(std::int64_t samples, std::int64_t, std::int64_t, std::int64_t,
                      const float* x, const float*, const float* dy, float* dx, float*, void*) {
  for (std::int64_t s = 0; s < samples; ++s) {
    dx[2 * s] = dy[2 * s] + dy[2 * s + 1] * x[2 * s + 1];
    dx[2 * s + 1] = dy[2 * s + 1] * x[2 * s];
  }
}

tessera_layer layer_of(int index, std::int64_t parameters, tessera_layer_forward forward,
                       tessera_layer_backward backward, void* user = nullptr) {
  tessera_layer layer{};
  layer.struct_size = sizeof layer;
  layer.index = index;
  layer.parameters = parameters;
  layer.deviation = parameters > 0 ? 0.2 : 0;
  layer.forward = forward;
  layer.backward = backward;
  layer.user = user;
  return layer;
}

tessera_network* make_with(const World& world, const std::string& config,
                           const std::vector<tessera_layer>& layers) {
  tessera_network_options options{};
  options.struct_size = sizeof options;
  const std::string text = on_test_device(config);
  options.config = text.c_str();
  options.layers = layers.data();
  options.layer_count = static_cast<std::int32_t>(layers.size());
  tessera_network* network = nullptr;
  EXPECT_OK(tessera_network_create(world.runtime, &options, &network));
  return network;
}

std::string with_given_layers(int stage, const std::string& more = "") {
  return "model: {model_type: mlp, layer_sizes: [2, 2, 24, 6, 1], activation: tanh,"
         " normalize_outputs: true}\n"
         "engine:\n  optimizer: {type: Adam, params: {lr: 0.01}}\n  zero_optimization: {stage: " +
         std::to_string(stage) + "}\n" + more;
}

// The first layer is the product, the third the caller's linear one.
TEST(CLayer, LearnsThroughLayersOfTheCaller) {
  const World world;
  const SharedFolder folder;
  Samples samples(world);
  const tessera_array inputs = samples.inputs(), targets = samples.targets();
  const std::string file = folder.path() + "/given.h5";
  int calls = 0;
  const std::vector<tessera_layer> layers = {
      layer_of(2, 6 * 24 + 6, linear_forward, linear_backward, &calls),
      layer_of(0, 0, product_forward, product_backward)};
  std::vector<float> expected;
  for (int stage = 0; stage <= 3; ++stage) {
    tessera_network* network = make_with(world, with_given_layers(stage), layers);
    std::int64_t parameters = 0;
    EXPECT_OK(tessera_network_parameters(network, &parameters));
    EXPECT_EQ(parameters, 2 * 24 + 24 + 24 * 6 + 6 + 6 + 1);
    ASSERT_OK(tessera_network_observe(network, nullptr, &targets));
    double first = 0, loss = 0;
    ASSERT_OK(tessera_network_evaluate(network, &inputs, &targets, &first));
    EXPECT_LT(train(network, samples, 300), 0.05 * first);
    if (stage == 0) expected = predict(network, samples);
    EXPECT_EQ(predict(network, samples), expected) << "stage " << stage;
    ASSERT_OK(tessera_network_evaluate(network, &inputs, &targets, &loss));
    EXPECT_OK(tessera_network_save(network, file.c_str(), nullptr));
    EXPECT_OK(tessera_network_destroy(&network));
  }
  EXPECT_GT(calls, 0);
  tessera_network* network = make_with(world, with_given_layers(1), layers);
  ASSERT_OK(tessera_network_load(network, file.c_str()));
  EXPECT_EQ(predict(network, samples), expected);
  EXPECT_OK(tessera_network_destroy(&network));
  network = make(world, with_given_layers(1));
  EXPECT_REFUSED(tessera_network_load(network, file.c_str()), TESSERA_IO, "layers.2.own");
  EXPECT_OK(tessera_network_destroy(&network));
}

// More threads than cores would spin in each other's way.
TEST(CLayer, RunsWithTheRanksShareOfTheNodesCores) {
  const tessera::testing::WithThreads many(2 * node_cores());
  for (const char* given : {"2", static_cast<const char*>(nullptr)}) {
    const test::ScopedVariable variable("OMP_NUM_THREADS", given);
    const World world;
    Samples samples(world);
    int seen = 0;
    auto layer = layer_of(0, 0, nullptr, product_backward, &seen);
    layer.forward = [](std::int64_t count, std::int64_t inputs, std::int64_t outputs,
                       std::int64_t parameters, const float* x, const float* w, float* y,
                       void* user) {
      *static_cast<int*>(user) = threads();
      product_forward(count, inputs, outputs, parameters, x, w, y, user);
    };
    tessera_network* network = make_with(
        world,
        "model: {model_type: mlp, layer_sizes: [2, 2, 1]}\nengine: {optimizer: {type: Adam}}\n",
        {layer});
    predict(network, samples);
    EXPECT_EQ(seen, given ? 2 * node_cores() : std::max(1, node_cores() / world.size));
    EXPECT_EQ(threads(), 2 * node_cores());  // the host's own
    EXPECT_OK(tessera_network_destroy(&network));
  }
}

// What a loss of the caller sees of a layer of the caller, against central differences: one layer,
// no scaling, so that a step of SGD with rate 1 subtracts the gradient.
TEST(CLayer, GradientsOfALayerAreThoseOfItsLoss) {
  const World world;
  Samples samples(world);
  const std::string config =
      "model: {model_type: mlp, layer_sizes: [2, 1]}\n"
      "engine: {optimizer: {type: SGD, params: {lr: 1}}, gradient_clipping: 0}\n";
  struct Spy {
    float w[3] = {};
  } spy;
  auto layer = layer_of(0, 3, nullptr, linear_backward, &spy);
  layer.forward = [](std::int64_t samples_here, std::int64_t inputs, std::int64_t outputs,
                     std::int64_t parameters, const float* x, const float* w, float* y,
                     void* user) {
    int calls = 0;
    std::copy_n(w, 3, static_cast<Spy*>(user)->w);
    linear_forward(samples_here, inputs, outputs, parameters, x, w, y, &calls);
  };
  tessera_network* network = make_with(world, config, {layer});
  const tessera_array inputs = samples.inputs(), targets = samples.targets();
  double loss = 0;
  ASSERT_OK(tessera_network_evaluate(network, &inputs, &targets, &loss));
  const Spy before = spy;
  ASSERT_OK(tessera_network_train_step(network, &inputs, &targets, nullptr));
  ASSERT_OK(tessera_network_evaluate(network, &inputs, &targets, &loss));
  const Spy after = spy;
  // The mean squared error of all ranks' samples with other parameters.
  const auto error = [&](const float* w) {
    double sum = 0;
    for (std::size_t i = 0; i < samples.y.size(); ++i) {
      const double d = static_cast<double>(w[0] * samples.x[2 * i] + w[1] * samples.x[2 * i + 1] +
                                           w[2] - samples.y[i]);
      sum += d * d / 256;
    }
    const tessera_array total = array_of(&sum, {});
    EXPECT_OK(tessera_all_reduce(world.group, &total, TESSERA_SUM));
    return sum;
  };
  for (std::size_t k = 0; k < 3; ++k) {
    constexpr float kStep = 1e-2f;
    Spy up = before, down = before;
    up.w[k] += kStep;
    down.w[k] -= kStep;
    const double slope = (error(up.w) - error(down.w)) / (2 * static_cast<double>(kStep));
    EXPECT_NEAR(static_cast<double>(before.w[k] - after.w[k]), slope, 1e-4);
  }
  EXPECT_OK(tessera_network_destroy(&network));
}

TEST(CLayer, RefusesLayersThatCannotBe) {
  const World world;
  tessera_network_options options{};
  options.struct_size = sizeof options;
  options.config = "model: {model_type: mlp, layer_sizes: [2, 2, 1]}";
  tessera_layer layer = layer_of(0, 0, product_forward, product_backward);
  options.layers = &layer;
  options.layer_count = 1;
  tessera_network* network = nullptr;
  const auto expect = [&](tessera_code code, const char* part) {
    EXPECT_REFUSED(tessera_network_create(world.runtime, &options, &network), code, part);
  };
  layer.index = 2;
  expect(TESSERA_INVALID_ARGUMENT, "layer 2");
  layer.index = 0;
  layer.backward = nullptr;
  expect(TESSERA_INVALID_ARGUMENT, "both forward and backward");
  layer.backward = product_backward;
  layer.parameters = -1;
  expect(TESSERA_INVALID_ARGUMENT, "-1");
  layer.parameters = 0;
  layer.struct_size = 0;
  expect(TESSERA_INVALID_ARGUMENT, "struct_size");
  const std::vector<tessera_layer> twice(2, layer_of(1, 0, product_forward, product_backward));
  options.layers = twice.data();
  options.layer_count = 2;
  expect(TESSERA_INVALID_ARGUMENT, "twice");
  options.layers = nullptr;
  expect(TESSERA_INVALID_ARGUMENT, "NULL");
  options.layers = twice.data();
  options.config = "model: {model_type: gpt2, n_layer: 1, n_embd: 16, n_head: 2, n_positions: 8}";
  expect(TESSERA_NOT_SUPPORTED, "mlp");
}

}  // namespace
}  // namespace tessera::c::testing
