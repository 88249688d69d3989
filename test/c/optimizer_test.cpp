// SPDX-License-Identifier: Apache-2.0
// The partitioned optimizer on a host's arrays, through the C interface.
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "tessera/base/dtype.hpp"
#include "tessera/checkpoint/reader.hpp"

#include "c/network_support.hpp"
#include "c/placed.hpp"

namespace tessera::c::testing {
namespace {

constexpr int kRows = 7, kColumns = 5;

std::string config_of(int stage, const std::string& more = "") {
  return on_test_device(
      "engine: {optimizer: {type: AdamW, params: {lr: 0.02, weight_decay: 0.1}},"
      " gradient_clipping: 0.5,"
      " scheduler: {type: WarmupLR, params: {warmup_num_steps: 4, warmup_type: linear}},"
      " zero_optimization: {stage: " +
      std::to_string(stage) + "}" + more + "}");
}

/// A host that fits y = W x + b to a rule of its own on other samples at each rank and step.
struct Host {
  Host(World& ranks, const std::string& config) : world(ranks) {
    tessera_optimizer_options options{};
    options.struct_size = sizeof options;
    options.config = config.c_str();
    options.reduction = TESSERA_MEAN;
    EXPECT_OK(tessera_optimizer_create(world.runtime, &options, &optimizer));
    const tessera_array wa = weights.array({kRows, kColumns});
    const tessera_array ga = weight_gradients.array({kRows, kColumns});
    const tessera_array ba = biases.array(), da = bias_gradients.array();
    EXPECT_OK(tessera_optimizer_add(optimizer, "w", &wa, &ga, nullptr));
    EXPECT_OK(tessera_optimizer_add(optimizer, "b", &ba, &da, nullptr));
    EXPECT_OK(tessera_optimizer_commit(optimizer));
  }
  ~Host() { EXPECT_OK(tessera_optimizer_destroy(&optimizer)); }
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  tessera_step step() {
    std::int64_t done = 0;
    EXPECT_OK(tessera_optimizer_steps(optimizer, &done));
    std::vector<float> x(kColumns);
    for (int j = 0; j < kColumns; ++j)
      x[static_cast<std::size_t>(j)] =
          static_cast<float>(std::sin(1.0 + j + 3.0 * static_cast<double>(done) + world.rank));
    for (int i = 0; i < kRows; ++i) {
      const auto row = static_cast<std::size_t>(i);
      float error = b[row] - static_cast<float>(i);
      for (std::size_t j = 0; j < kColumns; ++j) error += (w[row * kColumns + j] - 0.5f) * x[j];
      db[row] = error;
      for (std::size_t j = 0; j < kColumns; ++j) dw[row * kColumns + j] = error * x[j];
    }
    weight_gradients.put();
    bias_gradients.put();
    tessera_step result{};
    result.struct_size = sizeof result;
    EXPECT_OK(tessera_optimizer_step(optimizer, &result));
    fetch();
    return result;
  }
  void fetch() {
    weights.fetch();
    biases.fetch();
  }

  World& world;
  Placed<float> weights{std::vector<float>(kRows * kColumns)}, weight_gradients{weights.values};
  Placed<float> biases{std::vector<float>(kRows)}, bias_gradients{biases.values};
  std::vector<float>&w = weights.values, &dw = weight_gradients.values;
  std::vector<float>&b = biases.values, &db = bias_gradients.values;
  tessera_optimizer* optimizer = nullptr;
};

TEST(COptimizer, TrainsToTheSameBitsInEveryStage) {
  World world;
  std::vector<float> expected;
  for (int stage = 0; stage <= 3; ++stage) {
    Host host(world, config_of(stage));
    const double first = host.step().gradient_norm;
    tessera_step last{};
    for (int i = 0; i < 400; ++i) last = host.step();
    EXPECT_LT(last.gradient_norm, 0.05 * first);
    EXPECT_EQ(last.step, 401);
    EXPECT_EQ(last.learning_rate, 0.02);
    EXPECT_EQ(last.skipped, 0);
    if (stage == 0) expected = host.w;
    EXPECT_EQ(host.w, expected) << "stage " << stage;
  }
}

TEST(COptimizer, ReportsLearningRateAndGradientNorm) {
  World world;
  Host host(world, config_of(1));
  // The first error is -i in row i; x differs between ranks, so only the mean over ranks is exact
  // for b, whose gradient is the same everywhere.
  const tessera_step first = host.step();
  EXPECT_EQ(first.step, 1);
  EXPECT_EQ(first.loss_scale, 1);
  EXPECT_GT(first.gradient_norm, std::sqrt(91.0) - 1e-3);  // of b alone: Σ i²
  host.step();
  const double rate = host.step().learning_rate;
  EXPECT_GT(rate, first.learning_rate);
  EXPECT_LT(rate, 0.02);
}

TEST(COptimizer, ResumesExactlyInAnotherStage) {
  World world;
  const SharedFolder folder;
  const std::string file = folder.path() + "/closure.h5";
  std::vector<float> expected;
  {
    Host host(world, config_of(2));
    for (int i = 0; i < 5; ++i) host.step();
    ASSERT_OK(tessera_optimizer_save(host.optimizer, file.c_str(), "{\"time\": 0.25}"));
    ASSERT_OK(tessera_optimizer_save(host.optimizer, folder.path().c_str(), nullptr));
    for (int i = 0; i < 5; ++i) host.step();
    expected = host.w;
  }
  for (const std::string& from : {file, folder.path()}) {
    Host host(world, config_of(0));
    ASSERT_OK(tessera_optimizer_load(host.optimizer, from.c_str()));
    host.fetch();
    const char* state = nullptr;
    ASSERT_OK(tessera_optimizer_client_state(host.optimizer, &state));
    EXPECT_STREQ(state, from == file ? "{\"time\": 0.25}" : "");
    std::int64_t steps = 0;
    ASSERT_OK(tessera_optimizer_steps(host.optimizer, &steps));
    EXPECT_EQ(steps, 5);
    for (int i = 0; i < 5; ++i) host.step();
    EXPECT_EQ(host.w, expected) << from;
  }
}

TEST(COptimizer, SavesColumnMajorArraysTurnedRound) {
  World world;
  const SharedFolder folder;
  std::vector<float> w(6, 1), g(6);
  tessera_array wa = array_of(w.data(), {2, 3}), ga = array_of(g.data(), {2, 3});
  wa.order = ga.order = TESSERA_COLUMN_MAJOR;
  tessera_optimizer* optimizer = nullptr;
  ASSERT_OK(tessera_optimizer_create(world.runtime, nullptr, &optimizer));
  ASSERT_OK(tessera_optimizer_add(optimizer, "w", &wa, &ga, nullptr));
  ASSERT_OK(tessera_optimizer_commit(optimizer));
  const std::string file = folder.path() + "/w.h5";
  ASSERT_OK(tessera_optimizer_save(optimizer, file.c_str(), nullptr));
  EXPECT_EQ(checkpoint::Reader(file).dataset("parameters/w").shape, (Shape{3, 2}));
  EXPECT_OK(tessera_optimizer_destroy(&optimizer));
}

TEST(COptimizer, WorksOnAPartOfTheRanks) {
  World world;
  tessera_group* part = nullptr;
  ASSERT_OK(tessera_group_split(world.group, world.rank % 2, 0, &part));
  tessera_optimizer_options options{};
  options.struct_size = sizeof options;
  options.config = "optimizer: {type: SGD, params: {lr: 1}}\ngradient_clipping: 0";
  options.group = part;
  tessera_optimizer* optimizer = nullptr;
  ASSERT_OK(tessera_optimizer_create(world.runtime, &options, &optimizer));
  EXPECT_OK(tessera_group_destroy(&part));  // the optimizer keeps it
  std::vector<float> w(3, 0), g(3, 1), frozen(2, 5);
  const tessera_array wa = array_of(w), ga = array_of(g), fa = array_of(frozen);
  tessera_parameter_options freeze{};
  freeze.struct_size = sizeof freeze;
  freeze.frozen = 1;
  ASSERT_OK(tessera_optimizer_add(optimizer, "w", &wa, &ga, nullptr));
  ASSERT_OK(tessera_optimizer_add(optimizer, "constants", &fa, nullptr, &freeze));
  ASSERT_OK(tessera_optimizer_commit(optimizer));
  ASSERT_OK(tessera_optimizer_step(optimizer, nullptr));
  const int ranks = (world.size + 1 - world.rank % 2) / 2;
  EXPECT_EQ(w, std::vector<float>(3, -static_cast<float>(ranks)));  // the sum of the part's ones
  EXPECT_EQ(frozen, std::vector<float>(2, 5));
  EXPECT_OK(tessera_optimizer_destroy(&optimizer));
}

TEST(COptimizer, ScalesLossesInFp16AndSkipsOverflows) {
  World world;
  tessera_optimizer_options options{};
  options.struct_size = sizeof options;
  options.config =
      "fp16: {enabled: true, initial_scale_power: 4, hysteresis: 1}\n"
      "optimizer: {type: SGD, params: {lr: 1}}\ngradient_clipping: 0";
  tessera_optimizer* optimizer = nullptr;
  ASSERT_OK(tessera_optimizer_create(world.runtime, &options, &optimizer));
  std::vector<fp16> w(4), g(4);
  tessera_array wa{}, ga{};
  wa.dtype = ga.dtype = TESSERA_FP16;
  wa.rank = ga.rank = 1;
  wa.dims[0] = ga.dims[0] = 4;
  wa.data = w.data();
  ga.data = g.data();
  ASSERT_OK(tessera_optimizer_add(optimizer, "w", &wa, &ga, nullptr));
  ASSERT_OK(tessera_optimizer_commit(optimizer));
  tessera_step step{};
  step.struct_size = sizeof step;
  for (const float gradient : {INFINITY, 1.0f}) {
    double scale = 0;
    ASSERT_OK(tessera_optimizer_loss_scale(optimizer, &scale));
    EXPECT_EQ(scale, std::isinf(gradient) ? 16 : 8);
    g.assign(4, fp16::from_float(gradient * static_cast<float>(scale)));
    ASSERT_OK(tessera_optimizer_step(optimizer, &step));
    EXPECT_EQ(step.skipped, std::isinf(gradient) ? 1 : 0);
    EXPECT_EQ(step.loss_scale, scale);
  }
  EXPECT_EQ(w[0].to_float(), -static_cast<float>(world.size));
  EXPECT_OK(tessera_optimizer_destroy(&optimizer));
}

TEST(COptimizer, RefusesWhatCannotBe) {
  World world;
  tessera_optimizer_options options{};
  options.struct_size = sizeof options;
  tessera_optimizer* optimizer = nullptr;
  const auto create = [&](const char* config) {
    options.config = config;
    return tessera_optimizer_create(world.runtime, &options, &optimizer);
  };
  EXPECT_REFUSED(create("optimizer: {type: AdamW, params: {lrr: 1}}"), TESSERA_INVALID_CONFIG,
                 "lr");
  EXPECT_REFUSED(create("{zero_optimization: {stage: 9}}"), TESSERA_INVALID_CONFIG, "stage");
  EXPECT_REFUSED(create("model: {model_type: gpt2, vocab_size: 10}"), TESSERA_INVALID_CONFIG,
                 "`model`");
  EXPECT_REFUSED(create("{train_batch_size: 64, gradient_accumulation_steps: 4, "
                        "train_micro_batch_size_per_gpu: null}"),
                 world.size == 3 ? TESSERA_INVALID_CONFIG : TESSERA_NOT_SUPPORTED,
                 "gradient_accumulation_steps");
  ASSERT_OK(create(nullptr));
  std::vector<float> w(6), g(6);
  std::vector<double> d(6);
  const tessera_array wa = array_of(w), ga = array_of(g.data(), {2, 3}), da = array_of(d);
  EXPECT_REFUSED(tessera_optimizer_add(optimizer, "w", &wa, &ga, nullptr), TESSERA_INVALID_ARGUMENT,
                 "gradient of 'w'");
  EXPECT_REFUSED(tessera_optimizer_add(optimizer, "d", &da, &da, nullptr), TESSERA_INVALID_ARGUMENT,
                 "fp64");
  EXPECT_REFUSED(tessera_optimizer_add(optimizer, nullptr, &wa, &wa, nullptr),
                 TESSERA_INVALID_ARGUMENT, "name");
  EXPECT_REFUSED(tessera_optimizer_save(optimizer, "x.h5", nullptr), TESSERA_INVALID_ARGUMENT,
                 "commit");
  ASSERT_OK(tessera_optimizer_add(optimizer, "w", &wa, &wa, nullptr));
  ASSERT_OK(tessera_optimizer_commit(optimizer));
  EXPECT_REFUSED(tessera_optimizer_add(optimizer, "late", &wa, &wa, nullptr),
                 TESSERA_INVALID_ARGUMENT, "late");
  EXPECT_REFUSED(tessera_optimizer_load(optimizer, "/nowhere/at/all.h5"), TESSERA_IO, "all.h5");
  EXPECT_REFUSED(tessera_optimizer_save(optimizer, "x.h5", "not JSON"), TESSERA_INVALID_ARGUMENT,
                 "not JSON");
  EXPECT_OK(tessera_optimizer_destroy(&optimizer));
}

}  // namespace
}  // namespace tessera::c::testing
