// SPDX-License-Identifier: Apache-2.0
// Gradients of every operation against central differences, and what each one saves and shares.
#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/autograd/activation.hpp"
#include "tessera/autograd/attention.hpp"
#include "tessera/autograd/dropout.hpp"
#include "tessera/autograd/embedding.hpp"
#include "tessera/autograd/gated_activation.hpp"
#include "tessera/autograd/joined_linear.hpp"
#include "tessera/autograd/layer_norm.hpp"
#include "tessera/autograd/linear.hpp"
#include "tessera/autograd/rms_norm.hpp"
#include "tessera/autograd/rotary.hpp"
#include "tessera/base/error.hpp"

#include "autograd/gradient_check.hpp"

namespace tessera::autograd {
namespace {

using Values = std::vector<Value>;

Tensor ids_tensor(const std::vector<std::int32_t>& ids) {
  Tensor tensor(Shape{static_cast<std::int64_t>(ids.size())}, DType::int32);
  std::copy(ids.begin(), ids.end(), tensor.as<std::int32_t>());
  return tensor;
}

TEST(Linear, Gradients) {
  for (const auto layout : {WeightLayout::in_out, WeightLayout::out_in}) {
    const bool in_out = layout == WeightLayout::in_out;
    Weight weight = random_weight(in_out ? Shape{5, 3} : Shape{3, 5}, 1);
    Weight bias = random_weight(Shape{3}, 2);
    GradientCheck check(
        [&](Tape& tape, const Values& x) { return linear(tape, x[0], weight, &bias, layout); },
        {random_tensor(Shape{2, 2, 5}, 3)}, {&weight, &bias});
    check.run();
  }
}

TEST(Linear, SharedWeightAccumulates) {
  Weight weight = random_weight(Shape{4, 4}, 4);
  GradientCheck check(
      [&](Tape& tape, const Values& x) {
        return linear(tape, linear(tape, x[0], weight, nullptr), weight, nullptr);
      },
      {random_tensor(Shape{3, 4}, 5)}, {&weight});
  check.run();
}

TEST(Linear, FrozenWeightGetsNoGradient) {
  Weight weight = random_weight(Shape{4, 2}, 6);
  weight.trainable = false;
  weight.gradient = {};
  GradientCheck check(
      [&](Tape& tape, const Values& x) { return linear(tape, x[0], weight, nullptr); },
      {random_tensor(Shape{3, 4}, 7)}, {});
  check.run();
  EXPECT_FALSE(weight.gradient_written);
}

TEST(Linear, RefusesWhatDoesNotFit) {
  Weight weight = random_weight(Shape{4, 2}, 6);
  Tape tape(Recording::off);
  EXPECT_THROW(linear(tape, Value(random_tensor(Shape{3, 5}, 7)), weight, nullptr), Error);
  weight.value = {};
  EXPECT_THROW(linear(tape, Value(random_tensor(Shape{3, 4}, 7)), weight, nullptr), Error);
}

TEST(Linear, MissingGradientIsAnError) {
  Weight weight = random_weight(Shape{4, 2}, 6);
  weight.gradient = {};
  Tape tape(Recording::on);
  const Value y = linear(tape, Value(random_tensor(Shape{3, 4}, 7)), weight, nullptr);
  EXPECT_THROW(tape.backward(y, random_tensor(Shape{3, 2}, 8)), Error);
  EXPECT_EQ(tape.size(), 0u);
}

TEST(LinearActivation, Gradients) {
  for (const auto layout : {WeightLayout::in_out, WeightLayout::out_in})
    for (const bool keep : {true, false}) {
      const bool in_out = layout == WeightLayout::in_out;
      Weight weight = random_weight(in_out ? Shape{5, 3} : Shape{3, 5}, 1);
      Weight bias = random_weight(Shape{3}, 2);
      Weight after = random_weight(Shape{3, 2}, 4);
      GradientCheck check(
          [&](Tape& tape, const Values& x) {
            return linear(tape,
                          linear_activation(tape, x[0], weight, &bias,
                                            kernels::Activation::gelu_tanh, keep, layout),
                          after, nullptr);
          },
          {random_tensor(Shape{2, 2, 5}, 3)}, {&weight, &bias, &after});
      check.run();
    }
}

// The second linear map's gradient passes by the function's own node: also when others use the
// value too.
TEST(LinearActivation, GradientsOfAValueWithSeveralUses) {
  Weight weight = random_weight(Shape{5, 3}, 1);
  Weight first = random_weight(Shape{3, 3}, 4), second = random_weight(Shape{3, 3}, 5);
  GradientCheck check(
      [&](Tape& tape, const Values& x) {
        const Value y =
            linear_activation(tape, x[0], weight, nullptr, kernels::Activation::gelu_tanh);
        const Value sum = dropout_add(tape, linear(tape, y, first, nullptr),
                                      linear(tape, y, second, nullptr), {});
        return dropout_add(tape, y, sum, {});
      },
      {random_tensor(Shape{4, 5}, 3)}, {&weight, &first, &second});
  check.run();
}

TEST(LinearActivation, IsTheTwoOperationsToTheBit) {
  const auto run = [](bool together, DType dtype) {
    Weight weight = random_weight(Shape{16, 24}, 1), bias = random_weight(Shape{24}, 2);
    Weight after = random_weight(Shape{24, 8}, 4);
    for (Weight* w : {&weight, &bias, &after}) w->value = w->value.to(dtype);
    const Value x = Value::leaf(random_tensor(Shape{7, 16}, 3).to(dtype));
    Tape tape(Recording::on);
    const auto function = kernels::Activation::gelu_tanh;
    Value y;
    if (together) {
      y = linear_activation(tape, x, weight, &bias, function);
    } else {
      const Value active = activation(tape, linear(tape, x, weight, &bias), function);
      y = Value(active.data(), active.slot());  // without its origin
    }
    const Value z = linear(tape, y, after, nullptr);
    tape.backward(z, random_tensor(Shape{7, 8}, 5).to(dtype));
    std::vector<std::vector<float>> results;
    for (const Tensor& tensor : {z.data(), x.gradient(), weight.gradient, bias.gradient})
      results.push_back(to_vector(tensor.to(DType::fp32)));
    return results;
  };
  for (const DType dtype : {DType::fp32, DType::bf16, DType::fp16})
    EXPECT_EQ(run(true, dtype), run(false, dtype)) << to_string(dtype);
}

TEST(Linear, BiasGradientOfAnotherKindThanTheWeights) {
  Weight weight = random_weight(Shape{5, 3}, 1), bias = random_weight(Shape{3}, 2);
  Tape tape(Recording::on);
  const Value y = linear(tape, Value(random_tensor(Shape{4, 5}, 3)), weight, &bias);
  bias.gradient_written = true;  // is added to, while the weight's is overwritten
  const std::vector<float> before = to_vector(bias.gradient);
  const Tensor dy = random_tensor(Shape{4, 3}, 4);
  tape.backward(y, dy);
  for (std::size_t i = 0; i < 3; ++i) {
    float sum = before[i];
    for (std::size_t row = 0; row < 4; ++row) sum += dy.as<float>()[row * 3 + i];
    EXPECT_NEAR(bias.gradient.as<float>()[i], sum, 1e-5f);
  }
}

TEST(JoinedLinear, GradientsOfPartsInColumns) {
  Weight q = random_weight(Shape{4, 5}, 1), k = random_weight(Shape{2, 5}, 2),
         v = random_weight(Shape{2, 5}, 3), bias = random_weight(Shape{2}, 4);
  GradientCheck check(
      [&](Tape& tape, const Values& x) {
        return joined_linear(tape, x[0], {{&q}, {&k, &bias}, {&v}}, Joined::columns);
      },
      {random_tensor(Shape{2, 3, 5}, 5)}, {&q, &k, &v, &bias});
  check.run();
}

TEST(JoinedLinear, GradientsOfPartsInPlanes) {
  Weight gate = random_weight(Shape{4, 5}, 1), up = random_weight(Shape{4, 5}, 2),
         bias = random_weight(Shape{4}, 3);
  GradientCheck check(
      [&](Tape& tape, const Values& x) {
        return joined_linear(tape, x[0], {{&gate}, {&up, &bias}}, Joined::planes);
      },
      {random_tensor(Shape{2, 3, 5}, 5)}, {&gate, &up, &bias});
  check.run();
}

// Columns are those of the maps one by one, planes the maps one behind the other.
TEST(JoinedLinear, IsItsPartsSideBySide) {
  Weight a = random_weight(Shape{3, 4}, 1), b = random_weight(Shape{3, 4}, 2);
  Tape tape(Recording::off);
  const Value x(random_tensor(Shape{5, 4}, 3));
  const Tensor columns = joined_linear(tape, x, {{&a}, {&b}}, Joined::columns).data();
  const Tensor planes = joined_linear(tape, x, {{&a}, {&b}}, Joined::planes).data();
  EXPECT_EQ(columns.shape(), (Shape{5, 6}));
  EXPECT_EQ(planes.shape(), (Shape{2, 5, 3}));
  std::int64_t plane = 0;
  for (Weight* weight : {&a, &b}) {
    const Tensor y = linear(tape, x, *weight, nullptr, WeightLayout::out_in).data();
    for (std::int64_t row = 0; row < 5; ++row)
      for (std::int64_t i = 0; i < 3; ++i) {
        EXPECT_NEAR(columns.as<float>()[row * 6 + plane * 3 + i], y.as<float>()[row * 3 + i], 1e-5);
        EXPECT_NEAR(planes.as<float>()[plane * 15 + row * 3 + i], y.as<float>()[row * 3 + i], 1e-5);
      }
    ++plane;
  }
}

TEST(JoinedLinear, RefusesWhatDoesNotFit) {
  Weight a = random_weight(Shape{3, 4}, 1), b = random_weight(Shape{2, 4}, 2);
  Tape tape(Recording::off);
  const Value x(random_tensor(Shape{5, 4}, 3));
  EXPECT_THROW(joined_linear(tape, x, {{&a}, {&b}}, Joined::planes), Error);
  EXPECT_THROW(joined_linear(tape, Value(random_tensor(Shape{4, 5}, 3)), {{&a}}, Joined::columns),
               Error);
}

TEST(RmsNorm, Gradients) {
  for (const bool keep : {true, false}) {
    Weight weight = random_weight(Shape{6}, 8), next = random_weight(Shape{6, 3}, 9);
    GradientCheck check(
        [&](Tape& tape, const Values& x) {
          return linear(tape, rms_norm(tape, x[0], weight, 1e-5f, keep), next, nullptr);
        },
        {random_tensor(Shape{2, 3, 6}, 10)}, {&weight, &next});
    check.run();
  }
}

TEST(Rotary, GradientsAndWhatIsNotTurned) {
  const Tensor positions = ids_tensor({0, 1, 5, 2, 3, 900});
  const Tensor frequencies = random_tensor(Shape{2}, 6);
  const Rotary options{positions, frequencies, 2, 4};
  GradientCheck check([&](Tape& tape, const Values& x) { return rotary(tape, x[0], options); },
                      {random_tensor(Shape{2, 3, 12}, 7)}, {});
  check.run();
  Tape tape(Recording::off);
  const Tensor x = random_tensor(Shape{2, 3, 12}, 7);
  const Tensor y = rotary(tape, Value(x), options).data();
  for (std::int64_t row = 0; row < 6; ++row)
    for (std::int64_t i = 0; i < 12; ++i) {
      const bool turned = i < 8 && row > 0;
      EXPECT_EQ(x.as<float>()[row * 12 + i] != y.as<float>()[row * 12 + i], turned);
    }
}

TEST(GatedActivation, Gradients) {
  for (const bool keep : {true, false}) {
    Weight next = random_weight(Shape{4, 3}, 9);
    GradientCheck check(
        [&](Tape& tape, const Values& x) {
          const Value y = gated_activation(tape, x[0], kernels::Activation::silu, keep);
          return linear(tape, y, next, nullptr);
        },
        {random_tensor(Shape{2, 3, 4}, 7)}, {&next});
    check.run();
  }
}

// The caller's own halves stay as they are.
TEST(GatedActivation, DoesNotChangeWhatOthersHold) {
  const Tensor both = random_tensor(Shape{2, 5}, 7), before = both.clone();
  Tape tape(Recording::on);
  const Value x = Value::leaf(both);
  tape.backward(gated_activation(tape, x, kernels::Activation::silu), random_tensor(Shape{5}, 8));
  EXPECT_EQ(to_vector(both), to_vector(before));
  EXPECT_THROW(
      gated_activation(tape, Value(random_tensor(Shape{3, 5}, 7)), kernels::Activation::silu),
      Error);
}

TEST(LayerNorm, Gradients) {
  for (const bool keep : {true, false}) {
    Weight weight = random_weight(Shape{7}, 8);
    Weight bias = random_weight(Shape{7}, 9);
    Weight after = random_weight(Shape{7, 2}, 10);
    GradientCheck check(
        [&](Tape& tape, const Values& x) {
          return linear(tape, layer_norm(tape, x[0], weight, bias, 1e-5f, keep), after, nullptr);
        },
        {random_tensor(Shape{3, 7}, 11)}, {&weight, &bias, &after});
    check.run();
  }
}

TEST(LayerNorm, AddsToTheResidualGradient) {
  Weight weight = random_weight(Shape{5}, 12);
  Weight bias = random_weight(Shape{5}, 13);
  GradientCheck check(
      [&](Tape& tape, const Values& x) {
        return dropout_add(tape, x[0], layer_norm(tape, x[0], weight, bias, 1e-5f), {});
      },
      {random_tensor(Shape{4, 5}, 14)}, {&weight, &bias});
  check.run();
}

TEST(LayerNorm, GradientsOfASumAndItsNorm) {
  for (const float probability : {0.0f, 0.3f})
    for (const bool keep : {true, false}) {
      const DropoutSite site{.probability = probability, .seed = 3, .stream = 4, .offset = 0};
      Weight weight = random_weight(Shape{5}, 12), bias = random_weight(Shape{5}, 13);
      Weight after = random_weight(Shape{5, 5}, 15);
      GradientCheck check(
          [&](Tape& tape, const Values& x) {
            const NormedSum both =
                dropout_add_layer_norm(tape, x[0], x[1], site, weight, bias, 1e-5f, keep);
            return dropout_add(tape, both.sum, linear(tape, both.normed, after, nullptr), {});
          },
          {random_tensor(Shape{4, 5}, 14), random_tensor(Shape{4, 5}, 16)},
          {&weight, &bias, &after});
      check.run();
    }
}

TEST(LayerNorm, SumAndNormAreTheTwoOperationsToTheBit) {
  for (const DType dtype : {DType::fp32, DType::bf16, DType::fp16}) {
    Weight weight = random_weight(Shape{37}, 12), bias = random_weight(Shape{37}, 13);
    for (Weight* w : {&weight, &bias}) w->value = w->value.to(dtype);
    const Value residual(random_tensor(Shape{9, 37}, 14).to(dtype));
    const auto branch = [&] { return Value(random_tensor(Shape{9, 37}, 15).to(dtype)); };
    Tape tape(Recording::off);
    const Value sum = dropout_add(tape, residual, branch(), {});
    const Value normed = layer_norm(tape, sum, weight, bias, 1e-5f);
    Value last = branch();
    const void* elements = last.data().data();
    const NormedSum both =
        dropout_add_layer_norm(tape, residual, std::move(last), {}, weight, bias, 1e-5f);
    EXPECT_EQ(both.sum.data().data(), elements);  // in place of what nobody needs any more
    const auto values = [](const Value& v) { return to_vector(v.data().to(DType::fp32)); };
    EXPECT_EQ(values(both.sum), values(sum)) << to_string(dtype);
    EXPECT_EQ(values(both.normed), values(normed)) << to_string(dtype);
  }
  Weight weight = random_weight(Shape{5}, 12);
  Tape tape(Recording::off);
  EXPECT_THROW(
      dropout_add_layer_norm(tape, Value(random_tensor(Shape{4, 5}, 1)),
                             Value(random_tensor(Shape{3, 5}, 2)), {}, weight, weight, 1e-5f),
      Error);
}

TEST(Activation, Gradients) {
  using kernels::Activation;
  for (const auto function :
       {Activation::gelu, Activation::gelu_tanh, Activation::silu, Activation::tanh}) {
    for (const bool keep : {true, false}) {
      Weight after = random_weight(Shape{3, 2}, 15);
      GradientCheck check(
          [&](Tape& tape, const Values& x) {
            return linear(tape, activation(tape, x[0], function, keep), after, nullptr);
          },
          {random_tensor(Shape{5, 3}, 16)}, {&after});
      check.run();
    }
  }
}

TEST(Embedding, Gradients) {
  Weight table = random_weight(Shape{6, 4}, 17);
  Weight second = random_weight(Shape{3, 4}, 18);
  const Tensor ids = ids_tensor({5, 0, 5, 2});
  const Tensor second_ids = ids_tensor({0, 1, 2, 0});
  GradientCheck check(
      [&](Tape& tape, const Values&) { return embedding(tape, table, ids, &second, second_ids); },
      {}, {&table, &second});
  check.run();
}

TEST(Dropout, GradientsUseTheSameMask) {
  const DropoutSite site{.probability = 0.4f, .seed = 3, .stream = 4, .offset = 1001};
  GradientCheck check(
      [&](Tape& tape, const Values& x) {
        return dropout_add(tape, dropout(tape, x[0], site), x[1],
                           {.probability = 0.3f, .seed = 3, .stream = 5, .offset = 1001});
      },
      {random_tensor(Shape{5, 7}, 19), random_tensor(Shape{5, 7}, 20)}, {});
  check.run();
}

TEST(Dropout, DoesNotChangeWhatOthersHold) {
  const DropoutSite site{.probability = 0.5f, .seed = 3, .stream = 4, .offset = 0};
  Tape tape(Recording::off);
  const Value x(random_tensor(Shape{64}, 21));
  const std::vector<float> before = to_vector(x.data());
  const Value y = dropout(tape, x, site);
  EXPECT_NE(y.data().data(), x.data().data());
  EXPECT_EQ(to_vector(x.data()), before);
  Value last(random_tensor(Shape{64}, 21));
  const void* elements = last.data().data();
  const Value in_place = dropout_add(tape, x, std::move(last), site);
  EXPECT_EQ(in_place.data().data(), elements);
}

TEST(Dropout, ResidualSumSharesOneGradient) {
  Tape tape(Recording::on);
  const Value a = Value::leaf(random_tensor(Shape{8}, 22));
  const Value b = Value::leaf(random_tensor(Shape{8}, 23));
  const Value y = dropout_add(tape, a, b, {});
  tape.backward(y, random_tensor(Shape{8}, 24));
  EXPECT_EQ(a.gradient().data(), b.gradient().data());
}

TEST(SelfAttention, Gradients) {
  for (const float probability : {0.0f, 0.3f}) {
    const SelfAttention options{.heads = 2,
                                .scale = 0.5f,
                                .dropout = {.probability = probability, .seed = 1, .stream = 2},
                                .batch_offset = 3};
    GradientCheck check(
        [&](Tape& tape, const Values& x) { return self_attention(tape, x[0], options); },
        {random_tensor(Shape{2, 5, 3 * 2 * 4}, 25)}, {});
    check.run();
  }
}

TEST(SelfAttention, GradientsOfGroupedHeads) {
  GradientCheck check(
      [&](Tape& tape, const Values& x) {
        return self_attention(tape, x[0],
                              {.heads = 4, .kv_heads = 2, .scale = 0.5f, .dropout = {}});
      },
      {random_tensor(Shape{2, 5, (4 + 2 * 2) * 3}, 30)}, {});
  check.run();
}

TEST(SelfAttention, GradientsOfPaddedSequencesSeenFromBothSides) {
  for (const bool causal : {true, false}) {
    const SelfAttention options{
        .heads = 2,
        .scale = 0.5f,
        .causal = causal,
        .lengths = ids_tensor({5, 0, 3}),
        .dropout = {.probability = causal ? 0.3f : 0.0f, .seed = 1, .stream = 2}};
    GradientCheck check(
        [&](Tape& tape, const Values& x) { return self_attention(tape, x[0], options); },
        {random_tensor(Shape{3, 5, 3 * 2 * 4}, 25)}, {});
    check.run();
  }
}

TEST(SelfAttention, TakesNoNoticeOfThePadding) {
  const std::int64_t width = 8, positions = 5;
  const SelfAttention options{
      .heads = 2, .scale = 0.5f, .causal = false, .lengths = ids_tensor({3}), .dropout = {}};
  Tensor whole = random_tensor(Shape{1, positions, 3 * width}, 25), part = whole.clone();
  Tensor dy = random_tensor(Shape{1, positions, width}, 26), part_dy = dy.clone();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::fill(part.as<float>() + 3 * 3 * width, part.as<float>() + part.numel(), nan);
  std::fill(part_dy.as<float>() + 3 * width, part_dy.as<float>() + part_dy.numel(), nan);
  const auto run = [&](const Tensor& qkv, const Tensor& gradient) {
    Tape tape(Recording::on);
    const Value x = Value::leaf(qkv), y = self_attention(tape, x, options);
    const std::vector<float> result = to_vector(y.data());
    tape.backward(y, gradient.clone());
    return std::pair{result, to_vector(x.gradient())};
  };
  const auto [y, dx] = run(whole, dy);
  EXPECT_EQ(run(part, part_dy), std::pair(y, dx));
  EXPECT_EQ(std::count(y.begin() + 3 * width, y.end(), 0.0f), 2 * width);
  EXPECT_EQ(std::count(dx.begin() + 3 * 3 * width, dx.end(), 0.0f), 2 * 3 * width);
}

TEST(SelfAttention, RefusesWhatDoesNotFit) {
  Tape tape(Recording::off);
  const auto attend = [&](Shape shape, Tensor lengths) {
    self_attention(tape, Value(random_tensor(std::move(shape), 25)),
                   {.heads = 2, .scale = 1, .lengths = std::move(lengths), .dropout = {}});
  };
  EXPECT_NO_THROW(attend(Shape{2, 5, 12}, ids_tensor({5, 0})));
  EXPECT_THROW(attend(Shape{2, 5, 10}, {}), Error);
  EXPECT_THROW(attend(Shape{2, 5, 12}, ids_tensor({5})), Error);
  EXPECT_THROW(attend(Shape{2, 5, 12}, ids_tensor({5, 6})), Error);
  EXPECT_THROW(attend(Shape{2, 5, 12}, random_tensor(Shape{2}, 1)), Error);
}

}  // namespace
}  // namespace tessera::autograd
