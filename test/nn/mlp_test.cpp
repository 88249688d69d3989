// SPDX-License-Identifier: Apache-2.0
// The feed-forward network against plain loops, its gradients, its configuration.
#include "tessera/nn/models/mlp.hpp"

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "tessera/base/error.hpp"

#include "nn/strict_owner.hpp"

namespace tessera::nn {
namespace {

MlpConfig small_config() {
  MlpConfig config;
  config.layer_sizes = {3, 5, 5, 2};
  config.activation = "tanh";
  return config;
}

Tensor random_rows(std::int64_t rows, std::int64_t width, std::uint64_t stream) {
  Tensor tensor(Shape{rows, width}, DType::fp32);
  const RandomStream random(21, stream);
  for (std::int64_t i = 0; i < tensor.numel(); ++i)
    tensor.as<float>()[i] = random.normal(static_cast<std::uint64_t>(i));
  return tensor;
}

/// A network with its values, and what it says.
struct Fixture {
  explicit Fixture(const MlpConfig& config, DType dtype = DType::fp32)
      : mlp(config, {.dtype = dtype}), owner(mlp, dtype) {
    owner.initialize(11);
    Batch samples;
    samples.ids = random_rows(kRows, config.inputs(), 1);
    samples.targets = random_rows(kRows, config.outputs(), 2);
    if (config.loss == "cross_entropy") {
      samples.targets = Tensor(Shape{kRows}, DType::int32);
      for (std::int64_t r = 0; r < kRows; ++r)
        samples.targets.as<std::int32_t>()[r] = static_cast<std::int32_t>(r % 3) - 1;
    }
    batch = samples;
    batch.gradient_scale = 0.5f;
  }
  double loss() {
    autograd::Tape tape(autograd::Recording::off, &owner);
    return mlp.forward_loss(tape, batch).sum();
  }
  double train() {
    owner.clear_gradients();
    autograd::Tape tape(autograd::Recording::on, &owner);
    const autograd::Loss result = mlp.forward_loss(tape, batch);
    tape.backward();
    return result.sum();
  }
  Tensor predict(const Tensor& inputs) {
    autograd::Tape tape(autograd::Recording::off, &owner);
    return mlp.predict(tape, inputs);
  }

  static constexpr std::int64_t kRows = 4;
  Mlp mlp;
  StrictOwner owner;
  Batch batch;
};

TEST(Mlp, ComputesWhatPlainLoopsCompute) {
  for (const bool residual : {false, true}) {
    MlpConfig config = small_config();
    config.residual = residual;
    Fixture net(config);
    const Tensor outputs = net.predict(net.batch.ids);
    EXPECT_EQ(outputs.shape(), (Shape{Fixture::kRows, 2}));
    for (std::int64_t row = 0; row < Fixture::kRows; ++row) {
      std::vector<double> x(net.batch.ids.as<float>() + 3 * row,
                            net.batch.ids.as<float>() + 3 * row + 3);
      for (std::size_t layer = 0; layer < 3; ++layer) {
        const Tensor &weight = net.owner.value(2 * layer), &bias = net.owner.value(2 * layer + 1);
        std::vector<double> y;
        for (std::int64_t o = 0; o < weight.size(0); ++o) {
          double sum = static_cast<double>(bias.as<float>()[o]);
          for (std::size_t i = 0; i < x.size(); ++i)
            sum +=
                x[i] * static_cast<double>(
                           weight.as<float>()[o * weight.size(1) + static_cast<std::int64_t>(i)]);
          if (layer < 2) sum = std::tanh(sum);
          if (layer == 1 && residual) sum += x[static_cast<std::size_t>(o)];
          y.push_back(sum);
        }
        x = y;
      }
      for (std::size_t o = 0; o < 2; ++o)
        EXPECT_NEAR(outputs.as<float>()[2 * row + static_cast<std::int64_t>(o)], x[o], 1e-5);
    }
  }
}

TEST(Mlp, GradientsAreThoseOfTheLoss) {
  for (const char* loss : {"mse", "l1", "huber", "cross_entropy"}) {
    for (const char* norm : {"none", "layer_norm"}) {
      MlpConfig config = small_config();
      config.loss = loss;
      config.normalization = norm;
      config.residual = true;
      config.huber_delta = 0.6;
      Fixture net(config);
      if (config.loss == "l1") {  // stay away from the kink
        for (std::int64_t i = 0; i < net.batch.targets.numel(); ++i)
          net.batch.targets.as<float>()[i] += i % 2 == 0 ? 9.0f : -9.0f;
      }
      EXPECT_EQ(net.train(), net.loss());
      for (std::size_t p = 0; p < net.owner.size(); ++p) {
        const Tensor gradient = net.owner.gradient(p).clone();
        for (std::int64_t i = 0; i < gradient.numel(); i += 3) {
          float& element = net.owner.value(p).as<float>()[i];
          const float before = element;
          element = before + 2e-3f;
          const double up = net.loss();
          element = before - 2e-3f;
          const double down = net.loss();
          element = before;
          EXPECT_NEAR(gradient.as<float>()[i], 0.5 * (up - down) / 4e-3, 1e-2)
              << loss << " " << norm << " parameter " << p << " element " << i;
        }
      }
    }
  }
}

TEST(Mlp, GathersAndReleasesUnitByUnit) {
  Fixture net(small_config());
  net.train();
  EXPECT_EQ(net.owner.diary,
            (std::vector<std::string>{"+F0", "-F0", "+F1", "-F1", "+F2", "-F2", "+B2", "-B2", "!2",
                                      "+B1", "-B1", "!1", "+B0", "-B0", "!0"}));
}

TEST(Mlp, TakesNoSamplesToo) {
  Fixture net(small_config());
  net.batch.ids = net.batch.ids.rows(0, 0);
  net.batch.targets = net.batch.targets.rows(0, 0);
  EXPECT_EQ(net.train(), 0);
  for (std::size_t p = 0; p < net.owner.size(); ++p)
    for (std::int64_t i = 0; i < net.owner.gradient(p).numel(); ++i)
      ASSERT_EQ(net.owner.gradient(p).as<float>()[i], 0);
}

TEST(Mlp, In16BitsIsNearItselfIn32) {
  Fixture exact(small_config());
  const Tensor expected = exact.predict(exact.batch.ids);
  for (const DType dtype : {DType::bf16, DType::fp16}) {
    Fixture net(small_config(), dtype);
    const Tensor outputs = net.predict(net.batch.ids);
    EXPECT_EQ(outputs.dtype(), DType::fp32);
    for (std::int64_t i = 0; i < outputs.numel(); ++i)
      EXPECT_NEAR(outputs.as<float>()[i], expected.as<float>()[i], 0.05);
    EXPECT_NEAR(net.train(), exact.loss(), 0.1 * exact.loss());
  }
}

TEST(Mlp, NormalisesInputsAndOutputs) {
  MlpConfig config = small_config();
  config.normalize_inputs = config.normalize_outputs = true;
  Fixture net(config);
  net.mlp.statistics()[0]->observe(net.batch.ids);
  net.mlp.statistics()[1]->observe(net.batch.targets);
  const Tensor outputs = net.predict(net.batch.ids);

  Fixture plain(small_config());
  const Tensor scaled = net.mlp.input_statistics().apply(net.batch.ids);
  const Tensor expected = net.mlp.output_statistics().invert(plain.predict(scaled));
  for (std::int64_t i = 0; i < outputs.numel(); ++i)
    EXPECT_EQ(outputs.as<float>()[i], expected.as<float>()[i]);
  plain.batch.ids = scaled;
  plain.batch.targets = net.mlp.output_statistics().apply(net.batch.targets);
  EXPECT_EQ(net.loss(), plain.loss());

  Fixture other(config);
  other.mlp.set_extra_state(net.mlp.extra_state());
  EXPECT_EQ(other.mlp.extra_state(), net.mlp.extra_state());
  EXPECT_EQ(plain.mlp.extra_state(), "");
  EXPECT_THROW(other.mlp.set_extra_state(""), Error);
}

// The squared error, written as a program would.
double squares(const Tensor& targets, const Tensor& outputs, const Tensor& gradients) {
  double sum = 0;
  for (std::int64_t i = 0; i < outputs.numel(); ++i) {
    const float d = outputs.as<float>()[i] - targets.as<float>()[i];
    gradients.as<float>()[i] = 2 * d;
    sum += static_cast<double>(d) * static_cast<double>(d);
  }
  return sum;
}

TEST(Mlp, TakesALossOfTheProgram) {
  Fixture own(small_config()), given(small_config());
  given.batch.targets = Tensor::zeros({Fixture::kRows}, DType::fp32);
  given.batch.loss = [&](const Tensor& outputs, const Tensor& gradients) {
    return squares(own.batch.targets, outputs, gradients);
  };
  EXPECT_EQ(given.mlp.count_targets(given.batch.targets), Fixture::kRows);
  EXPECT_NEAR(given.train(), own.train(), 1e-12);
  for (std::size_t p = 0; p < own.owner.size(); ++p)
    for (std::int64_t i = 0; i < own.owner.gradient(p).numel(); ++i)
      EXPECT_EQ(given.owner.gradient(p).as<float>()[i], own.owner.gradient(p).as<float>()[i]);
}

TEST(Mlp, GivesOutputsToThatLossInItsUnits) {
  MlpConfig config = small_config();
  config.normalize_outputs = true;
  Fixture net(config);
  const Tensor targets = net.batch.targets;
  net.mlp.output_statistics().observe(targets);
  net.batch.loss = [&](const Tensor& outputs, const Tensor& gradients) {
    return squares(targets, outputs, gradients);
  };
  net.train();
  const Tensor gradient = net.owner.gradient(0).clone();
  for (std::int64_t i = 0; i < gradient.numel(); ++i) {
    float& element = net.owner.value(0).as<float>()[i];
    const float before = element;
    element = before + 2e-3f;
    const double up = net.loss();
    element = before - 2e-3f;
    const double down = net.loss();
    element = before;
    EXPECT_NEAR(gradient.as<float>()[i], 0.5 * (up - down) / 4e-3, 1e-2) << i;
  }
}

TEST(Mlp, RefusesOtherShapes) {
  Fixture net(small_config());
  net.batch.ids = random_rows(4, 2, 1);
  EXPECT_THROW(net.loss(), Error);
  net.batch.ids = random_rows(3, 3, 1);
  EXPECT_THROW(net.loss(), Error);
  net.batch.ids = Tensor(Shape{4, 3}, DType::int32);
  EXPECT_THROW(net.loss(), Error);
  EXPECT_THROW(Mlp(small_config(), {.dtype = DType::fp64}), Error);
  EXPECT_THROW(Mlp(small_config(), {.recompute = Recompute::full}), Error);
}

TEST(MlpConfig, IsReadAndWritten) {
  const std::string text =
      R"({"model_type": "mlp", "layer_sizes": [3, 8, 1], "activation": "relu", "residual": true,
          "normalization": "layer_norm", "loss": "huber", "huber_delta": 2, "layer_norm_eps": 0.1,
          "normalize_inputs": true, "normalize_outputs": true})";
  const MlpConfig config = MlpConfig::from_json(text, true);
  EXPECT_EQ(config.layer_sizes, (std::vector<std::int64_t>{3, 8, 1}));
  EXPECT_EQ(config.huber_delta, 2);
  const auto network = make_network(config.to_json(), {}, true);
  EXPECT_EQ(network->config_json(), config.to_json());
  EXPECT_EQ(network->parameter_count(), 3 * 8 + 8 + 8 + 8 + 8 + 1);
}

TEST(MlpConfig, RefusesWhatCannotBe) {
  const auto refusal = [](const std::string& more) {
    try {
      MlpConfig::from_json(R"({"model_type": "mlp", "layer_sizes": [3, 8, 1])" + more + "}", true);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), Code::invalid_config);
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refusal(""), "");
  EXPECT_NE(refusal(R"(, "layer_size": [1])").find("layer_sizes"), std::string::npos);
  EXPECT_NE(refusal(R"(, "activation": "rely")").find("relu"), std::string::npos);
  EXPECT_NE(refusal(R"(, "loss": "mae")").find("l1"), std::string::npos);
  EXPECT_NE(refusal(R"(, "huber_delta": 0)").find("positive"), std::string::npos);
  EXPECT_NE(refusal(R"(, "residual": 3)").find("residual"), std::string::npos);
  EXPECT_NE(refusal(R"(, "loss": "cross_entropy", "normalize_outputs": true)").find("classes"),
            std::string::npos);
  MlpConfig config = small_config();
  config.layer_sizes = {3};
  EXPECT_THROW(config.validate(), Error);
}

TEST(MakeModel, SendsFeedForwardNetworksToTheLibrary) {
  try {
    make_model(small_config().to_json(), {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::not_supported);
    EXPECT_NE(std::string(error.what()).find("engine::Learner"), std::string::npos);
  }
}

}  // namespace
}  // namespace tessera::nn
