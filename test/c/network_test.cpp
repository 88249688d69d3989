// SPDX-License-Identifier: Apache-2.0
// Networks by configuration, through the C interface: they learn, resume, and scale their data.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "c/network_support.hpp"

namespace tessera::c::testing {
namespace {

TEST(CNetwork, LearnsTheSameInEveryStage) {
  const World world;
  Samples samples(world);
  std::vector<float> expected;
  for (int stage = 0; stage <= 3; ++stage) {
    tessera_network* network = make(world, mlp("", stage));
    std::int64_t parameters = 0;
    EXPECT_OK(tessera_network_parameters(network, &parameters));
    EXPECT_EQ(parameters, 2 * 24 + 24 + 24 * 24 + 24 + 24 + 1);
    const double first = train(network, samples, 1);
    EXPECT_LT(train(network, samples, 300), 0.02 * first);
    const std::vector<float> outputs = predict(network, samples);
    double error = 0;
    for (std::size_t i = 0; i < outputs.size(); ++i)
      error += std::pow(static_cast<double>(outputs[i] - samples.y[i]), 2);
    const tessera_array sum = array_of(&error, {});
    EXPECT_OK(tessera_all_reduce(world.group, &sum, TESSERA_SUM));
    const tessera_array inputs = samples.inputs(), targets = samples.targets();
    double loss = 0;
    EXPECT_OK(tessera_network_evaluate(network, &inputs, &targets, &loss));
    EXPECT_NEAR(loss, error / 256, 1e-6);
    tessera_step step{};
    step.struct_size = sizeof step;
    EXPECT_OK(tessera_network_last_step(network, &step));
    EXPECT_EQ(step.step, 301);
    EXPECT_EQ(step.learning_rate, 0.01);
    EXPECT_GT(step.gradient_norm, 0);
    if (stage == 0) expected = outputs;
    EXPECT_EQ(outputs, expected) << "stage " << stage;
    EXPECT_OK(tessera_network_destroy(&network));
  }
}

TEST(CNetwork, ResumesExactlyWithItsStatistics) {
  const World world;
  const SharedFolder folder;
  Samples samples(world, 300, 1e4);
  const std::string config = mlp(", normalize_inputs: true, normalize_outputs: true");
  const std::string file = folder.path() + "/surrogate.h5";
  std::vector<float> expected;
  {
    tessera_network* network = make(world, config);
    const tessera_array inputs = samples.inputs(), targets = samples.targets();
    ASSERT_OK(tessera_network_observe(network, &inputs, &targets));
    train(network, samples, 10);
    ASSERT_OK(tessera_network_save(network, file.c_str(), "{\"t\": 3}"));
    EXPECT_LT(train(network, samples, 290), 0.05);  // of normalised numbers, whose variance is 1
    expected = predict(network, samples);
    EXPECT_OK(tessera_network_destroy(&network));
  }
  tessera_network* network = make(world, config);
  ASSERT_OK(tessera_network_load(network, file.c_str()));
  const char* state = nullptr;
  ASSERT_OK(tessera_network_client_state(network, &state));
  EXPECT_STREQ(state, "{\"t\": 3}");
  std::int64_t steps = 0;
  ASSERT_OK(tessera_network_steps(network, &steps));
  EXPECT_EQ(steps, 10);
  train(network, samples, 290);
  EXPECT_EQ(predict(network, samples), expected);
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(expected[i], samples.y[i], 150);
  EXPECT_OK(tessera_network_destroy(&network));
}

TEST(CNetwork, TakesColumnMajorAndStridedArrays) {
  const World world;
  Samples samples(world);
  tessera_network* network = make(world, mlp());
  const std::vector<float> expected = predict(network, samples);

  // Fortran's x(2, samples): the same memory.
  tessera_array inputs = array_of(samples.x.data(), {2, samples.count});
  inputs.order = TESSERA_COLUMN_MAJOR;
  std::vector<double> wide(2 * expected.size(), -1);  // every other element, as doubles
  tessera_array outputs = array_of(wide.data(), {samples.count});
  outputs.strides[0] = 2;
  ASSERT_OK(tessera_network_predict(network, &inputs, &outputs));
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(static_cast<float>(wide[2 * i]), expected[i]);
    EXPECT_EQ(wide[2 * i + 1], -1);
  }

  // One array of a and one of b behind each other, as doubles.
  std::vector<double> apart;
  for (std::size_t side = 0; side < 2; ++side)
    for (std::size_t i = 0; i < expected.size(); ++i)
      apart.push_back(static_cast<double>(samples.x[2 * i + side]));
  inputs = array_of(apart.data(), {samples.count, 2});
  inputs.strides[0] = 1;
  inputs.strides[1] = samples.count;
  ASSERT_OK(tessera_network_predict(network, &inputs, &outputs));
  for (std::size_t i = 0; i < expected.size(); ++i)
    EXPECT_EQ(static_cast<float>(wide[2 * i]), expected[i]);
  EXPECT_OK(tessera_network_destroy(&network));
}

// Whoever does not read the loss does not wait for it; what comes of the steps is the same.
TEST(CNetwork, StepsGoOnWhoseLossNobodyReads) {
  const World world;
  Samples samples(world);
  const tessera_array inputs = samples.inputs(), targets = samples.targets();
  tessera_network* waiting = make(world, mlp());
  tessera_network* network = make(world, mlp());
  const auto steps_without_loss = [&](int count) {
    for (int step = 0; step < count; ++step)
      ASSERT_OK(tessera_network_train_step(network, &inputs, &targets, nullptr));
  };
  const double loss = train(waiting, samples, 5);
  steps_without_loss(5);
  std::int64_t steps = 0;
  EXPECT_OK(tessera_network_steps(network, &steps));
  EXPECT_EQ(steps, 5);
  tessera_step outcome{};
  outcome.struct_size = sizeof outcome;
  EXPECT_OK(tessera_network_last_step(network, &outcome));
  EXPECT_EQ(outcome.step, 5);
  EXPECT_EQ(outcome.loss, loss);
  train(waiting, samples, 3);
  steps_without_loss(3);
  EXPECT_EQ(predict(network, samples), predict(waiting, samples));
  steps_without_loss(1);
  EXPECT_EQ(train(network, samples, 1), train(waiting, samples, 2));
  steps_without_loss(1);
  EXPECT_OK(tessera_network_destroy(&network));  // with a step under way
  EXPECT_OK(tessera_network_destroy(&waiting));
}

// A step is of all samples, whoever has them, and in however many pieces.
TEST(CNetwork, DoesNotCareWhoHasTheSamples) {
  const World world;
  Samples shared(world);
  std::vector<float> x, y;
  for (int i = 0; i < 256 && world.rank == world.size - 1; ++i) {
    const double a = (i % 16) / 8.0 - 1, b = (i / 16) / 8.0 - 1;  // NOLINT
    x.insert(x.end(), {static_cast<float>(a), static_cast<float>(b)});
    y.push_back(static_cast<float>(std::sin(2 * a) * b));
  }
  const auto count = static_cast<std::int64_t>(y.size());  // 0 on other ranks
  for (const char* accumulation :
       {"", "  gradient_accumulation_steps: 3\n  train_micro_batch_size_per_gpu: 1\n"}) {
    tessera_network* network = make(world, mlp());
    tessera_network* other = make(world, mlp("", 3) + accumulation);
    const tessera_array inputs = array_of(x.data(), {count, 2}),
                        targets = array_of(y.data(), {count, 1});
    for (int step = 0; step < 3; ++step) {
      double loss = 0;
      ASSERT_OK(tessera_network_train_step(other, &inputs, &targets, &loss));
      EXPECT_NEAR(loss, train(network, shared, 1), 1e-6);
    }
    EXPECT_OK(tessera_network_destroy(&network));
    EXPECT_OK(tessera_network_destroy(&other));
  }
}

// The squared error of `user`'s targets; with it a network learns as with its own mse.
double squares(std::int64_t first, std::int64_t samples, std::int64_t outputs, const float* values,
               float* gradients, void* user) {
  const auto& targets = *static_cast<const std::vector<float>*>(user);
  double sum = 0;
  for (std::int64_t i = 0; i < samples * outputs; ++i) {
    const float d = values[i] - targets[static_cast<std::size_t>(first * outputs + i)];
    gradients[i] = 2 * d;
    sum += static_cast<double>(d) * static_cast<double>(d);
  }
  return sum;
}

TEST(CNetwork, LearnsFromALossOfTheCaller) {
  const World world;
  Samples samples(world);
  const char* in_pieces = "  gradient_accumulation_steps: 2\n  train_micro_batch_size_per_gpu: 1\n";
  tessera_network* network = make(world, mlp());
  tessera_network* other = make(world, mlp("", 3) + in_pieces);
  const tessera_array inputs = samples.inputs();
  for (int step = 0; step < 20; ++step) {
    double loss = 0;
    ASSERT_OK(tessera_network_train_step_with(other, &inputs, squares, &samples.y, &loss));
    EXPECT_NEAR(loss, train(network, samples, 1), 1e-5);
  }
  EXPECT_REFUSED(tessera_network_train_step_with(other, &inputs, nullptr, nullptr, nullptr),
                 TESSERA_INVALID_ARGUMENT, "`function` is NULL");
  EXPECT_OK(tessera_network_destroy(&network));
  EXPECT_OK(tessera_network_destroy(&other));
}

TEST(CNetwork, LearnsClasses) {
  const World world;
  Samples samples(world);
  tessera_network* network =
      make(world,
           "model: {model_type: mlp, layer_sizes: [2, 16, 2], loss: cross_entropy}\n"
           "engine: {optimizer: {type: Adam, params: {lr: 0.02}}, bf16: {enabled: true}}\n");
  std::vector<std::int32_t> classes;
  for (const float y : samples.y) classes.push_back(y > 0 ? 1 : 0);
  const tessera_array inputs = samples.inputs(), targets = array_of(classes);
  double first = 0, loss = 0;
  ASSERT_OK(tessera_network_evaluate(network, &inputs, &targets, &first));
  for (int step = 0; step < 200; ++step)
    ASSERT_OK(tessera_network_train_step(network, &inputs, &targets, &loss));
  EXPECT_NEAR(first, std::log(2), 0.5);
  EXPECT_LT(loss, 0.3 * first);
  EXPECT_OK(tessera_network_destroy(&network));
}

TEST(CNetwork, TrainsGpt2ThroughTheSameCalls) {
  const World world;
  tessera_network* network = make(
      world,
      "model: {model_type: gpt2, n_layer: 1, n_embd: 16, n_head: 2, n_positions: 8, vocab_size: 11,"
      " embd_pdrop: 0.1}\n"
      "engine: {optimizer: {type: Adam, params: {lr: 0.02}}, zero_optimization: {stage: 3}}\n");
  std::vector<std::int32_t> ids, next;
  for (int i = 0; i < 16; ++i) {
    ids.push_back(i % 11);
    next.push_back((i + 1) % 11);
  }
  const tessera_array inputs = array_of(ids.data(), {2, 8}),
                      targets = array_of(next.data(), {2, 8});
  double first = 0, loss = 0;
  ASSERT_OK(tessera_network_evaluate(network, &inputs, &targets, &first));
  EXPECT_NEAR(first, std::log(11), 0.2);
  for (int step = 0; step < 60; ++step)
    ASSERT_OK(tessera_network_train_step(network, &inputs, &targets, &loss));
  ASSERT_OK(tessera_network_evaluate(network, &inputs, &targets, &loss));
  EXPECT_LT(loss, 0.2);
  EXPECT_REFUSED(tessera_network_train_step_with(network, &inputs, squares, nullptr, nullptr),
                 TESSERA_NOT_SUPPORTED, "mlp");
  std::vector<float> logits(16 * 11);
  const tessera_array outputs = array_of(logits.data(), {2, 8, 11});
  ASSERT_OK(tessera_network_predict(network, &inputs, &outputs));
  for (std::size_t i = 0; i < 16; ++i) {
    const float* row = logits.data() + 11 * i;
    EXPECT_EQ(std::max_element(row, row + 11) - row, next[i]);
  }
  EXPECT_OK(tessera_network_destroy(&network));
}

TEST(CNetwork, RefusesWhatCannotBe) {
  const World world;
  Samples samples(world);
  tessera_network_options options{};
  options.struct_size = sizeof options;
  tessera_network* network = nullptr;
  const auto create = [&](const char* config) {
    options.config = config;
    return tessera_network_create(world.runtime, &options, &network);
  };
  EXPECT_REFUSED(create(nullptr), TESSERA_INVALID_CONFIG, "`model`");
  EXPECT_REFUSED(create("model: {model_type: mlp, layer_sizes: [2, 1], activatoin: relu}"),
                 TESSERA_INVALID_CONFIG, "activation");
  EXPECT_REFUSED(create("model: {model_type: mixtral}"), TESSERA_NOT_SUPPORTED, "mixtral");
  EXPECT_REFUSED(create("model: {model_type: mlp, layer_sizes: [2]}"), TESSERA_INVALID_CONFIG,
                 "layer_sizes");
  EXPECT_REFUSED(create("model: {model_type: mlp, layer_sizes: [2, 1]}\nrun: {recompute: full}"),
                 TESSERA_NOT_SUPPORTED, "recompute");
  // What only the program `tessera train` obeys.
  for (const char* line : {"run: {checkpoint: {every: 10}}", "data: {train: [a.txt]}",
                           "comm: {timeout_seconds: 5}", "pipeline: {schedule: gpipe}"})
    EXPECT_REFUSED(
        create((std::string("model: {model_type: mlp, layer_sizes: [2, 1]}\n") + line).c_str()),
        TESSERA_INVALID_CONFIG, "has no effect");
  if (cuda_device_count() == 0)
    EXPECT_REFUSED(create("device: cuda\nmodel: {model_type: mlp, layer_sizes: [2, 1]}"),
                   TESSERA_NOT_SUPPORTED, cuda_unavailable_reason());
  network = make(world, mlp());
  tessera_array inputs = samples.inputs(), targets = samples.targets();
  double loss = 0;
  // What is wrong on the last rank alone is an error of all.
  tessera_array local = inputs;
  if (world.rank == world.size - 1) local.dims[1] = 1;
  EXPECT_REFUSED(tessera_network_train_step(network, &local, &targets, nullptr),
                 TESSERA_INVALID_ARGUMENT, "[samples, 2]");
  EXPECT_REFUSED(tessera_network_predict(network, &local, &targets), TESSERA_INVALID_ARGUMENT,
                 "[samples, 2]");
  if (world.rank == world.size - 1) local.rank = 11;
  EXPECT_REFUSED(tessera_network_evaluate(network, &local, &targets, &loss),
                 TESSERA_INVALID_ARGUMENT, "rank 11");
  EXPECT_REFUSED(tessera_network_train_step(network, &inputs, nullptr, nullptr),
                 TESSERA_INVALID_ARGUMENT, "`targets` is NULL");
  EXPECT_REFUSED(tessera_network_train_step(network, &targets, &targets, nullptr),
                 TESSERA_INVALID_ARGUMENT, "[samples, 2]");
  inputs.dtype = TESSERA_INT32;
  EXPECT_REFUSED(tessera_network_predict(network, &inputs, &targets), TESSERA_INVALID_ARGUMENT,
                 "floating-point");
  inputs = samples.inputs();
  EXPECT_REFUSED(tessera_network_predict(network, &inputs, &inputs), TESSERA_INVALID_ARGUMENT,
                 "`outputs`");
  EXPECT_REFUSED(tessera_network_observe(network, &inputs, &targets), TESSERA_INVALID_ARGUMENT,
                 "normalize_inputs");
  EXPECT_REFUSED(tessera_network_load(network, "/nowhere/at/all.h5"), TESSERA_IO, "all.h5");
  EXPECT_REFUSED(tessera_network_save(network, "x.h5", "{"), TESSERA_INVALID_ARGUMENT, "JSON");
  EXPECT_OK(tessera_network_destroy(&network));
}

}  // namespace
}  // namespace tessera::c::testing
