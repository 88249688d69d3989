// SPDX-License-Identifier: Apache-2.0
// A GPU through the C interface beside the CPU: networks, arrays of either in either, functions of
// the caller's.
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "c/network_support.hpp"
#include "c/placed.hpp"

namespace tessera::c::testing {
namespace {

constexpr double kTolerance = 2e-4;

const Device kHost{};
Device gpu() {
  return tessera::testing::test_device();
}

tessera_network* make_on(const World& world, const char* device, const std::string& config,
                         const std::vector<tessera_layer>& layers = {}, bool on_device = false) {
  tessera_network_options options{};
  options.struct_size = sizeof options;
  const std::string text = std::string("device: ") + device + "\n" + config;
  options.config = text.c_str();
  options.layers = layers.data();
  options.layer_count = static_cast<std::int32_t>(layers.size());
  options.callbacks_on_device = on_device ? 1 : 0;
  tessera_network* network = nullptr;
  EXPECT_OK(tessera_network_create(world.runtime, &options, &network));
  return network;
}

/// 3 numbers to 2, other ones on each rank, one rank with none where there are several.
struct Data {
  explicit Data(const World& world)
      : count(world.size > 1 && world.rank == 0 ? 0 : 21 + world.rank) {
    for (std::int64_t i = 0; i < count; ++i) {
      const double a = std::sin(1.7 * static_cast<double>(i) + world.rank), b = std::cos(3.1 * a);
      for (const double value : {a, b, a * b}) x.push_back(static_cast<float>(4 * value + 7));
      for (const double value : {a - b * b, a + b}) y.push_back(static_cast<float>(30 * value));
      classes.push_back(i % 5 == 4 ? -1 : a > 0 ? 1 : 0);
    }
  }
  std::int64_t count;
  std::vector<float> x, y;
  std::vector<std::int32_t> classes;
};

std::string with(const std::string& more, const std::string& engine = "") {
  return "model: {model_type: mlp, layer_sizes: [3, 8, 8, 2], normalize_inputs: true" + more +
         "}\nengine: {optimizer: {type: AdamW, params: {lr: 0.01}}, "
         "zero_optimization: {stage: 2}" +
         engine + "}\n";
}

/// Losses of some steps, then one of evaluation and what the network says.
std::vector<double> curve(const World& world, const char* device, Device place,
                          const std::string& config, bool classes) {
  const Data data(world);
  Placed<float> x(data.x, place), y(data.y, place), said(std::vector<float>(data.y.size()), place);
  Placed<std::int32_t> z(data.classes, place);
  const tessera_array inputs = x.array({data.count, 3}), outputs = said.array({data.count, 2});
  const tessera_array targets = classes ? z.array() : y.array({data.count, 2});
  tessera_network* network = make_on(world, device, config);
  EXPECT_OK(tessera_network_observe(network, &inputs, classes ? nullptr : &targets));
  std::vector<double> seen;
  for (int step = 0; step < 4; ++step)
    EXPECT_OK(tessera_network_train_step(network, &inputs, &targets, &seen.emplace_back()));
  EXPECT_OK(tessera_network_evaluate(network, &inputs, &targets, &seen.emplace_back()));
  EXPECT_OK(tessera_network_predict(network, &inputs, &outputs));
  EXPECT_OK(tessera_network_destroy(&network));
  said.fetch();
  seen.insert(seen.end(), said.values.begin(), said.values.end());
  return seen;
}

void expect_same_curve(const World& world, const std::string& config, double tolerance,
                       bool classes = false) {
  const auto expected = curve(world, "cpu", kHost, config, classes);
  const auto found = curve(world, "cuda", gpu(), config, classes);
  for (std::size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(found[i], expected[i], tolerance * (1 + std::abs(expected[i]))) << i << config;
  // Where arrays lie makes no difference.
  EXPECT_EQ(curve(world, "cuda", kHost, config, classes), found) << config;
  EXPECT_EQ(curve(world, "cpu", gpu(), config, classes), expected) << config;
}

TEST(CGpu, ActivationsFollowTheCpu) {
  const World world;
  for (const char* activation : {"relu", "gelu", "gelu_new", "silu", "tanh"})
    expect_same_curve(
        world,
        with(std::string(", residual: true, normalize_outputs: true, activation: ") + activation),
        kTolerance);
  expect_same_curve(world, with(", normalization: layer_norm, normalize_outputs: true"),
                    kTolerance);
}

TEST(CGpu, LossesFollowTheCpu) {
  const World world;
  for (const char* loss : {"mse", "l1", "huber"})
    expect_same_curve(
        world, with(std::string(", normalize_outputs: true, huber_delta: 0.5, loss: ") + loss),
        kTolerance);
  expect_same_curve(world, with(", loss: cross_entropy"), kTolerance, true);
}

TEST(CGpu, TypesAndMicroBatchesFollowTheCpu) {
  const World world;
  const std::string model = ", normalize_outputs: true";
  expect_same_curve(world, with(model, ", bf16: {enabled: true}"), 0.05);
  expect_same_curve(world, with(model, ", fp16: {enabled: true, loss_scale: 64}"), 0.01);
  expect_same_curve(
      world, with(model, ", gradient_accumulation_steps: 3, train_micro_batch_size_per_gpu: 1"),
      kTolerance);
}

TEST(CGpu, Gpt2FollowsTheCpu) {
  const World world;
  const std::string config =
      "model: {model_type: gpt2, n_layer: 2, n_embd: 16, n_head: 2, n_positions: 8, vocab_size: 11,"
      " embd_pdrop: 0, attn_pdrop: 0, resid_pdrop: 0}\n"
      "engine: {optimizer: {type: Adam, params: {lr: 0.02}}, zero_optimization: {stage: 3}}\n";
  const auto losses = [&](const char* device, Device place) {
    std::vector<std::int32_t> ids, next;
    for (int i = 0; i < 16; ++i) {
      ids.push_back((i + world.rank) % 11);
      next.push_back((i + world.rank + 1) % 11);
    }
    Placed<std::int32_t> x(ids, place), y(next, place);
    Placed<float> logits(std::vector<float>(16 * 11), place);
    const tessera_array inputs = x.array({2, 8}), targets = y.array({2, 8});
    const tessera_array outputs = logits.array({2, 8, 11});
    tessera_network* network = make_on(world, device, config);
    std::vector<double> seen;
    for (int step = 0; step < 3; ++step)
      EXPECT_OK(tessera_network_train_step(network, &inputs, &targets, &seen.emplace_back()));
    EXPECT_OK(tessera_network_predict(network, &inputs, &outputs));
    EXPECT_OK(tessera_network_destroy(&network));
    logits.fetch();
    seen.insert(seen.end(), logits.values.begin(), logits.values.end());
    return seen;
  };
  const auto expected = losses("cpu", kHost), found = losses("cuda", gpu());
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(found[i], expected[i], 1e-3) << i;
  EXPECT_EQ(losses("cuda", kHost), found);
  EXPECT_EQ(losses("cpu", gpu()), expected);
}

// A network with a step behind it, and its inputs as fp32 one after the other.
struct Trained {
  explicit Trained(const World& world) : data(world) {
    network = make_on(world, "cuda", with(""));
    Placed<float> x(data.x), y(data.y);
    const tessera_array inputs = x.array({data.count, 3}), targets = y.array({data.count, 2});
    EXPECT_OK(tessera_network_observe(network, &inputs, nullptr));
    EXPECT_OK(tessera_network_train_step(network, &inputs, &targets, nullptr));
    expected = predict(inputs);
  }
  ~Trained() { EXPECT_OK(tessera_network_destroy(&network)); }
  Trained(const Trained&) = delete;
  Trained& operator=(const Trained&) = delete;

  std::vector<float> predict(const tessera_array& inputs) {
    Placed<float> said(std::vector<float>(data.y.size(), -1));
    const tessera_array outputs = said.array({data.count, 2});
    EXPECT_OK(tessera_network_predict(network, &inputs, &outputs));
    said.fetch();
    return said.values;
  }

  Data data;
  tessera_network* network = nullptr;
  std::vector<float> expected;
};

TEST(CGpu, ReadsArraysOfAnyStrides) {
  const World world;
  Trained trained(world);
  const std::int64_t count = trained.data.count;
  const auto samples = static_cast<std::size_t>(count);
  const std::vector<float>& x = trained.data.x;

  Placed<float> plain(x);  // Fortran's x(3, samples)
  tessera_array inputs = plain.array({3, count});
  inputs.order = TESSERA_COLUMN_MAJOR;
  EXPECT_EQ(trained.predict(inputs), trained.expected);

  // Doubles, each number's column apart, with a gap behind it.
  std::vector<double> columns(3 * (samples + 5), 1e30);
  for (std::size_t i = 0; i < x.size(); ++i)
    columns[i % 3 * (samples + 5) + i / 3] = static_cast<double>(x[i]);
  Placed<double> apart(columns);
  inputs = apart.array({count, 3});
  inputs.strides[0] = 1;
  inputs.strides[1] = count + 5;
  EXPECT_EQ(trained.predict(inputs), trained.expected);

  // Samples from the last to the first.
  std::vector<float> backward(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) backward[(samples - 1 - i / 3) * 3 + i % 3] = x[i];
  Placed<float> turned(backward);
  inputs = turned.array({count, 3});
  inputs.data = turned.data() + (count > 0 ? (count - 1) * 3 : 0);
  inputs.strides[0] = -3;
  inputs.strides[1] = 1;
  EXPECT_EQ(trained.predict(inputs), trained.expected);
}

// [samples, a, b, c] whose places have nothing to do with each other: more than one copy.
TEST(CGpu, ReadsArraysOfFourDimensionsApart) {
  const World world;
  tessera_network* network =
      make_on(world, "cuda", "model: {model_type: mlp, layer_sizes: [30, 4, 1]}\nengine: {}\n");
  constexpr std::int64_t kSizes[] = {4, 2, 5, 3}, kStrides[] = {7, 301, 29, 150};
  std::vector<float> scattered(2000, 1e30f), dense;
  for (std::int64_t i = 0; i < 120; ++i) {
    const std::int64_t index[] = {i / 30, i / 15 % 2, i / 3 % 5, i % 3};
    std::int64_t place = 0;
    for (int d = 0; d < 4; ++d) place += index[d] * kStrides[d];
    dense.push_back(static_cast<float>(std::sin(0.3 * static_cast<double>(i))));
    scattered[static_cast<std::size_t>(place)] = dense.back();
  }
  std::vector<std::vector<float>> said;
  for (const bool strided : {false, true}) {
    Placed<float> x(strided ? scattered : dense), y(std::vector<float>(4));
    tessera_array inputs = x.array({4, 2, 5, 3});
    for (int d = 0; d < 4 && strided; ++d) inputs.strides[d] = kStrides[d];
    ASSERT_EQ(kSizes[0], inputs.dims[0]);
    const tessera_array outputs = y.array();
    ASSERT_OK(tessera_network_predict(network, &inputs, &outputs));
    y.fetch();
    said.push_back(y.values);
  }
  EXPECT_EQ(said[0], said[1]);
  EXPECT_NE(said[0], std::vector<float>(4));
  EXPECT_OK(tessera_network_destroy(&network));
}

TEST(CGpu, WritesArraysOfAnyStrides) {
  const World world;
  Trained trained(world);
  Placed<float> x(trained.data.x);
  const std::int64_t count = trained.data.count;
  const tessera_array inputs = x.array({count, 3});
  for (const Device place : {gpu(), kHost}) {
    // Every third double, columns one after the other.
    Placed<double> wide(std::vector<double>(static_cast<std::size_t>(6 * count + 1), -1), place);
    tessera_array outputs = wide.array({count, 2});
    outputs.strides[0] = 3;
    outputs.strides[1] = 3 * count;
    ASSERT_OK(tessera_network_predict(trained.network, &inputs, &outputs));
    wide.fetch();
    for (std::size_t i = 0; i < wide.values.size(); ++i) {
      const std::size_t number = i / 3, samples = static_cast<std::size_t>(count);
      const bool written = i % 3 == 0 && number < 2 * samples;
      EXPECT_EQ(wide.values[i],
                written
                    ? static_cast<double>(trained.expected[number % samples * 2 + number / samples])
                    : -1.0);
    }
  }
}

// A step whose loss nobody reads has what it needs of the arrays when the call returns.
TEST(CGpu, ArraysMayChangeWhileAStepIsUnderWay) {
  const World world;
  const Data data(world);
  const auto train = [&](bool changes) {
    tessera_network* network = make_on(world, "cuda", with(""));
    for (int step = 0; step < 3; ++step) {
      Placed<float> x(data.x), y(data.y);
      const tessera_array inputs = x.array({data.count, 3}), targets = y.array({data.count, 2});
      EXPECT_OK(tessera_network_train_step(network, &inputs, &targets, nullptr));
      tessera_step outcome{};
      outcome.struct_size = sizeof outcome;
      if (!changes) {
        EXPECT_OK(tessera_network_last_step(network, &outcome));
      }
      x.values.assign(x.values.size(), std::numeric_limits<float>::quiet_NaN());
      y.values = x.values;
      y.values.resize(data.y.size());
      x.put();
      y.put();
    }
    tessera_step last{};
    last.struct_size = sizeof last;
    EXPECT_OK(tessera_network_last_step(network, &last));
    EXPECT_OK(tessera_network_destroy(&network));
    return last.loss;
  };
  EXPECT_EQ(train(true), train(false));
}

TEST(CGpu, CheckpointsGoFromOneToTheOther) {
  const World world;
  const SharedFolder folder;
  const std::string file = folder.path() + "/gpu.h5", config = with(", normalize_outputs: true");
  const Data data(world);
  Placed<float> x(data.x), y(data.y);
  const tessera_array inputs = x.array({data.count, 3}), targets = y.array({data.count, 2});
  tessera_network* there = make_on(world, "cuda", config);
  ASSERT_OK(tessera_network_observe(there, &inputs, &targets));
  ASSERT_OK(tessera_network_train_step(there, &inputs, &targets, nullptr));
  ASSERT_OK(tessera_network_save(there, file.c_str(), nullptr));
  for (const char* device : {"cpu", "cuda"}) {
    tessera_network* here = make_on(world, device, config);
    ASSERT_OK(tessera_network_load(here, file.c_str()));
    double loss = 0, expected = 0;
    ASSERT_OK(tessera_network_evaluate(here, &inputs, &targets, &loss));
    ASSERT_OK(tessera_network_evaluate(there, &inputs, &targets, &expected));
    EXPECT_NEAR(loss, expected, kTolerance);
    EXPECT_OK(tessera_network_destroy(&here));
  }
  ASSERT_OK(tessera_network_save_async(there, file.c_str(), nullptr));
  ASSERT_OK(tessera_network_train_step(there, &inputs, &targets, nullptr));
  EXPECT_OK(tessera_network_destroy(&there));
}

/// A function of the caller's for a GPU: it brings what it reads to the host and back, over a
/// stream of its own.
struct OnGpu {
  std::vector<float> fetch(const float* device, std::int64_t count) const {
    std::vector<float> values(static_cast<std::size_t>(count));
    stream.copy(values.data(), device, values.size() * sizeof(float));
    stream.synchronize();
    return values;
  }
  void put(float* device, const std::vector<float>& values) const {
    stream.copy(device, values.data(), values.size() * sizeof(float));
    stream.synchronize();
  }
  Stream stream = make_stream(gpu());
};

// y = w x of single numbers, and the squared distance from 3.
void scale_forward(std::int64_t samples, std::int64_t, std::int64_t outputs, std::int64_t,
                   const float* x, const float* w, float* y, void*) {
  for (std::int64_t i = 0; i < samples * outputs; ++i) y[i] = w[i % outputs] * x[i];
}
void scale_backward(std::int64_t samples, std::int64_t, std::int64_t outputs, std::int64_t,
                    const float* x, const float* w, const float* dy, float* dx, float* dw, void*) {
  for (std::int64_t i = 0; i < samples * outputs; ++i) {
    dx[i] = w[i % outputs] * dy[i];
    dw[i % outputs] += x[i] * dy[i];
  }
}
double from_three(std::int64_t, std::int64_t samples, std::int64_t outputs, const float* values,
                  float* gradients, void*) {
  double sum = 0;
  for (std::int64_t i = 0; i < samples * outputs; ++i) {
    gradients[i] += 2 * (values[i] - 3);
    sum += static_cast<double>((values[i] - 3) * (values[i] - 3));
  }
  return sum;
}

void scale_forward_on_gpu(std::int64_t samples, std::int64_t inputs, std::int64_t outputs,
                          std::int64_t parameters, const float* x, const float* w, float* y,
                          void* user) {
  const auto& there = *static_cast<OnGpu*>(user);
  auto result = there.fetch(y, samples * outputs);
  scale_forward(samples, inputs, outputs, parameters, there.fetch(x, samples * inputs).data(),
                there.fetch(w, parameters).data(), result.data(), nullptr);
  there.put(y, result);
}
void scale_backward_on_gpu(std::int64_t samples, std::int64_t inputs, std::int64_t outputs,
                           std::int64_t parameters, const float* x, const float* w, const float* dy,
                           float* dx, float* dw, void* user) {
  const auto& there = *static_cast<OnGpu*>(user);
  auto x_slopes = there.fetch(dx, samples * inputs), w_slopes = there.fetch(dw, parameters);
  scale_backward(samples, inputs, outputs, parameters, there.fetch(x, samples * inputs).data(),
                 there.fetch(w, parameters).data(), there.fetch(dy, samples * outputs).data(),
                 x_slopes.data(), w_slopes.data(), nullptr);
  there.put(dx, x_slopes);
  there.put(dw, w_slopes);
}
double from_three_on_gpu(std::int64_t first, std::int64_t samples, std::int64_t outputs,
                         const float* values, float* gradients, void* user) {
  const auto& there = *static_cast<OnGpu*>(user);
  auto slopes = there.fetch(gradients, samples * outputs);
  const double sum =
      from_three(first, samples, outputs, there.fetch(values, samples * outputs).data(),
                 slopes.data(), nullptr);
  there.put(gradients, slopes);
  return sum;
}

TEST(CGpu, CallsFunctionsOfTheCallerWhereTheyWant) {
  const World world;
  const Data data(world);
  OnGpu there;
  const auto train = [&](const char* device, bool on_device) {
    tessera_layer layer{};
    layer.struct_size = sizeof layer;
    layer.index = 1;
    layer.parameters = 8;
    layer.deviation = 0.5;
    layer.forward = on_device ? scale_forward_on_gpu : scale_forward;
    layer.backward = on_device ? scale_backward_on_gpu : scale_backward;
    layer.user = &there;
    tessera_network* network =
        make_on(world, device, with(", normalize_outputs: true"), {layer}, on_device);
    Placed<float> x(data.x), y(data.y);
    const tessera_array inputs = x.array({data.count, 3}), targets = y.array({data.count, 2});
    EXPECT_OK(tessera_network_observe(network, &inputs, &targets));
    std::vector<double> losses;
    for (int step = 0; step < 3; ++step)
      EXPECT_OK(tessera_network_train_step_with(network, &inputs,
                                                on_device ? from_three_on_gpu : from_three, &there,
                                                &losses.emplace_back()));
    EXPECT_OK(tessera_network_evaluate(network, &inputs, &targets, &losses.emplace_back()));
    EXPECT_OK(tessera_network_destroy(&network));
    return losses;
  };
  const auto expected = train("cpu", false), found = train("cuda", false);
  for (std::size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(found[i], expected[i], kTolerance * (1 + std::abs(expected[i]))) << i;
  EXPECT_EQ(train("cuda", true), found);
}

TEST(CGpu, FindsArraysByTheirAddresses) {
  const World world;
  for (const Device place : {gpu(), kHost}) {
    Placed<float> ones({1, 1}, place);
    tessera_array array = ones.array();
    array.device = {TESSERA_DEVICE_OF_ADDRESS, 0};
    ASSERT_OK(tessera_group_open_gpus(world.group));
    ASSERT_OK(tessera_all_reduce(world.group, &array, TESSERA_SUM));
    ones.fetch();
    EXPECT_EQ(ones.values, std::vector<float>(2, static_cast<float>(world.size)));
  }
}

TEST(CGpu, IsTheOneThatTheHostChose) {
  const World world;
  tessera_device own{};
  ASSERT_OK(tessera_runtime_gpu(world.runtime, &own));
  EXPECT_EQ(own.type, TESSERA_CUDA_DEVICE);
  EXPECT_EQ(own.index, gpu().index);
  tessera_runtime_options options{};
  options.struct_size = sizeof options;
  tessera_runtime* runtime = nullptr;
  const auto create = [&](tessera_device chosen) {
    options.gpu = chosen;
    return tessera_runtime_create(MPI_COMM_WORLD, &options, &runtime);
  };
  EXPECT_REFUSED(create({TESSERA_CUDA_DEVICE, 4711}), TESSERA_INVALID_ARGUMENT, "4711");
  EXPECT_REFUSED(create({TESSERA_CPU, 1}), TESSERA_INVALID_ARGUMENT, "TESSERA_CUDA_DEVICE");
  const int last = cuda_device_count() - 1;
  ASSERT_OK(create({TESSERA_CUDA_DEVICE, last}));
  ASSERT_OK(tessera_runtime_gpu(runtime, &own));
  EXPECT_EQ(own.index, last);
  EXPECT_OK(tessera_runtime_destroy(&runtime));
}

TEST(CGpu, RefusesWhatCannotBe) {
  const World world;
  tessera_network* network = make_on(world, "cuda", with(""));
  Placed<float> x({1, 2, 3}), y({1, 2});
  tessera_array inputs = x.array({1, 3}), targets = y.array({1, 2});
  // What is wrong on the last rank alone is an error of all.
  if (world.rank == world.size - 1) inputs.device.index = 99;
  EXPECT_REFUSED(tessera_network_train_step(network, &inputs, &targets, nullptr),
                 TESSERA_INVALID_ARGUMENT, "`inputs` lies on cuda:99");
  EXPECT_OK(tessera_network_destroy(&network));

  Placed<float> here(std::vector<float>(static_cast<std::size_t>(world.size)), kHost);
  const tessera_array send = y.array({1}), receive = here.array();
  EXPECT_REFUSED(tessera_all_gather(world.group, &send, &receive), TESSERA_INVALID_ARGUMENT,
                 "`receive` on cpu");
  tessera_optimizer* optimizer = nullptr;
  ASSERT_OK(tessera_optimizer_create(world.runtime, nullptr, &optimizer));
  EXPECT_REFUSED(tessera_optimizer_add(optimizer, "w", &send, &send, nullptr),
                 TESSERA_INVALID_ARGUMENT, "was made for cpu");
  const tessera_array part = here.array({1});
  EXPECT_REFUSED(tessera_optimizer_add(optimizer, "w", &part, &send, nullptr),
                 TESSERA_INVALID_ARGUMENT, "the gradient of 'w' lies on");
  EXPECT_OK(tessera_optimizer_destroy(&optimizer));
}

}  // namespace
}  // namespace tessera::c::testing
