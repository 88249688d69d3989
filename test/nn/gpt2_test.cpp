// SPDX-License-Identifier: Apache-2.0
// GPT-2's units, hooks, recomputation, dropout, memory and work.
#include "tessera/nn/models/gpt2.hpp"

#include <cmath>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"
#include "tessera/kernels/gemm.hpp"

#include "nn/strict_owner.hpp"

namespace tessera::nn {
namespace {

using autograd::Recording;
using autograd::Tape;

Gpt2Config small_config() {
  Gpt2Config config;
  config.n_layer = 2;
  config.n_embd = 24;
  config.n_head = 3;
  config.n_positions = 20;
  config.vocab_size = 41;
  return config;
}

struct Outcome {
  double loss;
  std::vector<std::vector<std::byte>> gradients;
  std::vector<std::string> diary;
  bool operator==(const Outcome& other) const {
    return loss == other.loss && gradients == other.gradients;
  }
};

Outcome train(const Gpt2Config& config, const ModelOptions& options, Batch batch) {
  Gpt2 model(config, options);
  StrictOwner owner(model, options.dtype);
  owner.initialize(5);
  owner.clear_gradients();
  Tape tape(Recording::on, &owner);
  batch.seed = 11;
  batch.gradient_scale = 0.01f;
  const autograd::Loss loss = model.forward_loss(tape, batch);
  tape.backward();
  Outcome outcome{loss.sum(), {}, owner.diary};
  for (std::size_t i = 0; i < owner.size(); ++i) {
    const auto* bytes = owner.gradient(i).as<std::byte>();
    outcome.gradients.emplace_back(bytes, bytes + owner.gradient(i).bytes());
  }
  return outcome;
}

TEST(Gpt2, UnitsFollowTheForwardPass) {
  Gpt2 tied(small_config(), {});
  ASSERT_EQ(tied.units().size(), 4u);
  EXPECT_EQ(tied.units()[0].name, "embedding");
  EXPECT_EQ(tied.units()[0].last_use, 3);
  EXPECT_EQ(tied.units()[2].name, "h.1");
  EXPECT_EQ(tied.units()[2].parameters.size(), 12u);
  EXPECT_EQ(tied.units()[2].parameters[2].name, "transformer.h.1.attn.c_attn.weight");
  EXPECT_EQ(tied.units()[2].parameters[2].parameter->shape(), (Shape{24, 72}));
  EXPECT_EQ(tied.units()[3].parameters.size(), 2u);
  Gpt2Config config = small_config();
  config.tie_word_embeddings = false;
  Gpt2 untied(config, {});
  EXPECT_EQ(untied.units()[0].last_use, 0);
  EXPECT_EQ(untied.units()[3].parameters.back().name, "lm_head.weight");
  EXPECT_EQ(untied.parameter_count(), tied.parameter_count() + 41 * 24);
}

TEST(Gpt2, HooksOfATiedHead) {
  const std::vector<std::string> expected = {"+F0", "+F1", "-F1", "+F2", "-F2", "+F3", "-F3",
                                             "-F0", "+B0", "+B3", "-B3", "!3",  "+B2", "-B2",
                                             "!2",  "+B1", "-B1", "!1",  "-B0", "!0"};
  const Batch batch = random_batch(2, 9, 41, 1);
  for (const auto recompute : {Recompute::none, Recompute::selective, Recompute::full})
    EXPECT_EQ(train(small_config(), {.recompute = recompute}, batch).diary, expected);
}

TEST(Gpt2, HooksOfAnUntiedHead) {
  Gpt2Config config = small_config();
  config.tie_word_embeddings = false;
  const std::vector<std::string> expected = {"+F0", "-F0", "+F1", "-F1", "+F2", "-F2", "+F3",
                                             "-F3", "+B3", "-B3", "!3",  "+B2", "-B2", "!2",
                                             "+B1", "-B1", "!1",  "+B0", "-B0", "!0"};
  EXPECT_EQ(train(config, {}, random_batch(2, 9, 41, 1)).diary, expected);
}

TEST(Gpt2, RecomputationNeverChangesABit) {
  const Batch batch = random_batch(3, 17, 41, 2);
  for (const DType dtype : {DType::fp32, DType::bf16, DType::fp16}) {
    const Outcome plain = train(small_config(), {.dtype = dtype}, batch);
    EXPECT_TRUE(std::isfinite(plain.loss));
    for (const auto recompute : {Recompute::selective, Recompute::full})
      EXPECT_TRUE(train(small_config(), {dtype, recompute}, batch) == plain) << to_string(dtype);
  }
}

TEST(Gpt2, DropoutDependsOnStepAndGlobalRow) {
  Batch batch = random_batch(2, 9, 41, 3);
  const Outcome first = train(small_config(), {}, batch);
  EXPECT_TRUE(train(small_config(), {}, batch) == first);
  batch.step = 1;
  EXPECT_NE(train(small_config(), {}, batch).loss, first.loss);
  batch.step = 0;
  batch.first_row = 2;
  EXPECT_NE(train(small_config(), {}, batch).loss, first.loss);
}

TEST(Gpt2, RowsInOneBatchOrInTwoDropTheSame) {
  const Batch batch = random_batch(4, 9, 41, 4);
  const double together = train(small_config(), {}, batch).loss;
  double apart = 0;
  for (const std::int64_t row : {0, 2}) {
    Batch part = batch;
    part.ids = batch.ids.rows(row, row + 2);
    part.targets = batch.targets.rows(row, row + 2);
    part.first_row = row;
    apart += train(small_config(), {}, part).loss;
  }
  EXPECT_NEAR(apart, together, 1e-6 * together);
}

/// Gradients in fp32 of a bf16 model after the given micro-batches, which add up.
std::vector<Tensor> accumulated(const std::vector<Batch>& batches) {
  Gpt2 model(small_config(), {.dtype = DType::bf16});
  StrictOwner owner(model, DType::fp32);
  owner.initialize(5);
  owner.clear_gradients();
  for (const Batch& batch : batches) {
    Tape tape(Recording::on, &owner);
    model.forward_loss(tape, batch);
    tape.backward();
  }
  std::vector<Tensor> gradients;
  for (std::size_t i = 0; i < owner.size(); ++i) gradients.push_back(owner.gradient(i));
  return gradients;
}

TEST(Gpt2, MicroBatchesAccumulateInFp32) {
  const Batch first = random_batch(2, 9, 41, 5), second = random_batch(1, 13, 41, 6);
  const std::vector<Tensor> a = accumulated({first}), b = accumulated({second});
  const std::vector<Tensor> both = accumulated({first, second});
  for (std::size_t i = 0; i < both.size(); ++i) {
    for (std::int64_t j = 0; j < both[i].numel(); ++j) {
      const float sum = a[i].as<float>()[j] + b[i].as<float>()[j];
      ASSERT_NEAR(both[i].as<float>()[j], sum, 1e-5f * (1 + std::fabs(sum))) << i << " " << j;
    }
  }
}

TEST(Gpt2, FrozenParametersGetNoGradient) {
  Gpt2 model(small_config(), {});
  for (const NamedParameter& named : model.units()[1].parameters)
    named.parameter->trainable = false;
  model.units()[0].parameters[0].parameter->trainable = false;
  StrictOwner owner(model, DType::fp32);
  owner.initialize(5);
  owner.clear_gradients();
  Tape tape(Recording::on, &owner);
  model.forward_loss(tape, random_batch(2, 9, 41, 7));
  tape.backward();
  for (const NamedParameter& named : model.parameters())
    EXPECT_EQ(named.parameter->gradient_written, named.parameter->trainable) << named.name;
}

TEST(Gpt2, EvaluationHasNoDropoutAndAgreesWithTheLogits) {
  Gpt2 model(small_config(), {});
  StrictOwner owner(model, DType::fp32);
  owner.initialize(6);
  Batch batch = random_batch(2, 9, 41, 5);
  batch.training = false;
  Tape tape(Recording::off, &owner);
  const double loss = model.forward_loss(tape, batch).sum();
  const Tensor logits = model.logits(tape, batch.ids);
  ASSERT_EQ(logits.shape(), (Shape{2, 9, 41}));
  double expected = 0;
  for (std::int64_t r = 0; r < 18; ++r) {
    const std::int32_t target = batch.targets.as<std::int32_t>()[r];
    if (target < 0) continue;
    const float* row = logits.as<float>() + r * 41;
    double sum = 0;
    for (int v = 0; v < 41; ++v) sum += std::exp(static_cast<double>(row[v]));
    expected += std::log(sum) - static_cast<double>(row[target]);
  }
  EXPECT_NEAR(loss, expected, 1e-5 * expected);
  EXPECT_EQ(owner.diary.size(), 2 * 8u);
}

TEST(Gpt2, AttentionScalesAreHuggingFaces) {
  const Batch batch = random_batch(2, 9, 41, 6);
  Gpt2Config config = small_config();
  config.embd_pdrop = config.attn_pdrop = config.resid_pdrop = 0;
  config.initializer_range = 0.5;
  const double base = train(config, {}, batch).loss;
  config.scale_attn_by_inverse_layer_idx = true;
  const double by_layer = train(config, {}, batch).loss;
  config.scale_attn_weights = false;
  EXPECT_NE(base, by_layer);
  EXPECT_NE(train(config, {}, batch).loss, by_layer);
}

TEST(Gpt2, ActivationMemoryIsTheFormula) {
  MemoryLedger& ledger = memory_ledger({});
  Gpt2Config config = small_config();
  const Batch batch = random_batch(4, 20, 41, 7);
  for (const double probability : {0.0, 0.1}) {
    for (const auto& [recompute, every] : {std::pair{Recompute::none, 1},
                                           {Recompute::selective, 1},
                                           {Recompute::selective, 2},
                                           {Recompute::full, 1},
                                           {Recompute::full, 2},
                                           {Recompute::full, 3}}) {
      const DType dtype = probability > 0 ? DType::fp32 : DType::bf16;
      config.resid_pdrop = probability;
      config.n_layer = recompute == Recompute::full ? 5 : 2;
      Gpt2 model(config, {dtype, recompute, every});
      StrictOwner owner(model, dtype);
      owner.initialize(7);
      owner.clear_gradients();
      ASSERT_EQ(ledger.current(Purpose::activations), 0);
      ledger.reset_peaks();
      Tape tape(Recording::on, &owner);
      model.forward_loss(tape, batch);
      tape.backward();
      EXPECT_EQ(ledger.peak(Purpose::activations), model.activation_bytes(4, 20))
          << to_string(dtype) << " recompute " << static_cast<int>(recompute) << " of " << every;
      EXPECT_EQ(ledger.current(Purpose::activations), 0);
    }
  }
}

TEST(Gpt2, WorkIsTheFormula) {
  Gpt2 model(small_config(), {});
  StrictOwner owner(model, DType::fp32);
  owner.initialize(8);
  owner.clear_gradients();
  const Batch batch = random_batch(2, 17, 41, 8);
  const std::int64_t before = kernels::flop_count();
  Tape tape(Recording::on, &owner);
  model.forward_loss(tape, batch);
  tape.backward();
  EXPECT_EQ(kernels::flop_count() - before, model.training_flops(2, 17));
}

TEST(Gpt2, BadInput) {
  Gpt2 model(small_config(), {});
  StrictOwner owner(model, DType::fp32);
  owner.initialize(9);
  Tape tape(Recording::off, &owner);
  Batch batch = random_batch(1, 21, 41, 9);
  EXPECT_THROW(model.forward_loss(tape, batch), Error);
  batch = random_batch(1, 5, 41, 9);
  batch.ids.as<std::int32_t>()[2] = 41;
  EXPECT_THROW(model.forward_loss(tape, batch), Error);
  EXPECT_THROW(model.logits(tape, Tensor(Shape{1, 3}, DType::fp32)), Error);
  Tape on(Recording::on, &owner);
  EXPECT_THROW(model.logits(on, random_batch(1, 5, 41, 9).ids), Error);
}

}  // namespace
}  // namespace tessera::nn
