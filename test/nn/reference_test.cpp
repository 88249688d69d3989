// SPDX-License-Identifier: Apache-2.0
// Models against PyTorch in double precision: logits, gradients and twenty AdamW steps.
#include <cmath>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/checkpoint/model_weights.hpp"
#include "tessera/checkpoint/safetensors.hpp"
#include "tessera/kernels/adamw.hpp"
#include "tessera/nn/model.hpp"

#include "nn/strict_owner.hpp"

namespace tessera::nn {
namespace {

using autograd::Recording;
using autograd::Tape;

constexpr std::int64_t kSteps = 20, kRows = 4, kPositions = 48;

std::string config_text(const std::string& folder) {
  std::ifstream file(folder + "/config.json");
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Of a folder with a model's weights and what PyTorch makes of them.
class Reference : public testing::TestWithParam<const char*> {
 protected:
  Reference()
      : folder_(std::string(TESSERA_TEST_DATA "/models/") + GetParam()),
        reference_(folder_ + "/reference.safetensors") {}

  std::vector<double> doubles(const std::string& name) const {
    const std::int64_t count = reference_.entry(name).shape.numel();
    std::vector<double> values(static_cast<std::size_t>(count));
    reference_.read(name, DType::fp64, values.data());
    return values;
  }

  void load(DType dtype) {
    model_ = make_model(config_text(folder_), {.dtype = dtype}, true);
    owner_ = std::make_unique<StrictOwner>(*model_, dtype);
    const checkpoint::ModelWeights weights(folder_);
    const auto shape_of = [&](const std::string& name) {
      return weights.contains(name) ? std::optional<Shape>(weights.shape(name)) : std::nullopt;
    };
    names_ = model_->parameters();
    for (std::size_t i = 0; i < names_.size(); ++i)
      weights.read(find_in_files(*model_, names_[i], shape_of), dtype, owner_->value(i).data());
  }

  /// Labels are not shifted in the file: position t predicts label t + 1.
  Batch batch(std::int64_t step) {
    constexpr std::int64_t kCount = kRows * kPositions;
    std::vector<std::int64_t> ids(kCount), labels(kCount);
    reference_.read_range("input_ids", step * kCount, kCount, DType::int64, ids.data());
    reference_.read_range("labels", step * kCount, kCount, DType::int64, labels.data());
    Batch result;
    result.ids = Tensor(Shape{kRows, kPositions}, DType::int32);
    result.targets = Tensor(Shape{kRows, kPositions}, DType::int32);
    valid_ = 0;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const bool last = (i + 1) % kPositions == 0;
      const auto target = static_cast<std::int32_t>(last ? -100 : labels[i + 1]);
      result.ids.as<std::int32_t>()[i] = static_cast<std::int32_t>(ids[i]);
      result.targets.as<std::int32_t>()[i] = target;
      valid_ += target >= 0 ? 1 : 0;
    }
    result.gradient_scale = 1.0f / static_cast<float>(valid_);
    return result;
  }

  /// Mean loss; gradients are left with the owner.
  double forward_backward(std::int64_t step) {
    owner_->clear_gradients();
    Tape tape(Recording::on, owner_.get());
    const autograd::Loss loss = model_->forward_loss(tape, batch(step));
    tape.backward();
    return loss.sum() / static_cast<double>(valid_);
  }

  double gradient_norm() {
    double sum = 0;
    for (std::size_t i = 0; i < owner_->size(); ++i)
      for (std::int64_t j = 0; j < owner_->gradient(i).numel(); ++j) {
        const auto g = static_cast<double>(owner_->gradient(i).as<float>()[j]);
        sum += g * g;
      }
    return std::sqrt(sum);
  }

  /// Largest difference from the reference, and the reference's largest element.
  struct Difference {
    double error = 0, largest = 0;
  };
  Difference compare(const Tensor& actual, const std::string& name) {
    const std::vector<double> expected = doubles(name);
    EXPECT_EQ(static_cast<std::int64_t>(expected.size()), actual.numel());
    Difference result;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const auto value = static_cast<double>(actual.as<float>()[i]);
      result.error = std::max(result.error, std::fabs(value - expected[i]));
      result.largest = std::max(result.largest, std::fabs(expected[i]));
    }
    return result;
  }

  std::string folder_;
  checkpoint::SafetensorsFile reference_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<StrictOwner> owner_;
  std::vector<NamedParameter> names_;
  std::int64_t valid_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Models, Reference,
                         testing::Values("gpt2-tiny", "llama-tiny", "llama3-tiny"),
                         [](const auto& folder) {
                           const std::string name = folder.param;
                           return name.substr(0, name.find('-'));
                         });

TEST_P(Reference, Logits) {
  load(DType::fp32);
  Tape tape(Recording::off, owner_.get());
  const Tensor logits = model_->logits(tape, batch(0).ids.rows(0, 2));
  const double error = compare(logits, "logits.fp64").error;
  RecordProperty("error", std::to_string(error));
  EXPECT_LE(error, 2 * doubles("logits_max_error.fp32")[0]);
}

TEST_P(Reference, GradientsOfEveryParameter) {
  load(DType::fp32);
  EXPECT_NEAR(forward_backward(0), doubles("loss.fp64")[0], 1e-6);
  for (std::size_t i = 0; i < names_.size(); ++i) {
    const Difference difference = compare(owner_->gradient(i), "grad.fp64." + names_[i].name);
    EXPECT_LE(difference.error, 1e-5 * difference.largest) << names_[i].name;
  }
}

TEST_P(Reference, TwentyAdamWSteps) {
  load(DType::fp32);
  const std::vector<double> losses = doubles("losses.fp64"), norms = doubles("grad_norms.fp64");
  std::vector<std::vector<float>> first, second;
  for (std::size_t i = 0; i < owner_->size(); ++i) {
    first.emplace_back(static_cast<std::size_t>(owner_->value(i).numel()));
    second.push_back(first.back());
  }
  for (std::int64_t step = 0; step < kSteps; ++step) {
    EXPECT_NEAR(forward_backward(step), losses[static_cast<std::size_t>(step)], 1e-5) << step;
    const double norm = gradient_norm();
    EXPECT_NEAR(norm, norms[static_cast<std::size_t>(step)], 1e-4 * norm) << step;
    for (std::size_t i = 0; i < owner_->size(); ++i)
      kernels::adamw({}, {.parameter = owner_->value(i).data(),
                          .exp_avg = first[i].data(),
                          .exp_avg_sq = second[i].data(),
                          .gradient = owner_->gradient(i).data(),
                          .gradient_type = DType::fp32,
                          .gradient_scale = static_cast<float>(std::min(1.0, 1.0 / (norm + 1e-6))),
                          .lr = 0.002f,
                          .beta1 = 0.9f,
                          .beta2 = 0.95f,
                          .epsilon = 1e-8f,
                          .weight_decay = owner_->value(i).shape().rank() > 1 ? 0.1f : 0.0f,
                          .correction1 = static_cast<float>(1 - std::pow(0.9, step + 1)),
                          .correction2 = static_cast<float>(1 - std::pow(0.95, step + 1)),
                          .count = owner_->value(i).numel()});
  }
  for (std::size_t i = 0; i < names_.size(); ++i) {
    // A key's bias has no gradient but rounding, which Adam makes large; the rest is within a tenth
    // of one update.
    const bool has_key_bias = names_[i].name.ends_with("c_attn.bias");
    EXPECT_LE(compare(owner_->value(i), "final.fp64." + names_[i].name).error,
              has_key_bias ? 2e-2 : 2e-4)
        << names_[i].name;
  }
}

TEST_P(Reference, Bf16IsClose) {
  load(DType::bf16);
  EXPECT_NEAR(forward_backward(0), doubles("loss.fp64")[0], 0.02);
  for (std::size_t i = 0; i < names_.size(); ++i) {
    const Difference difference =
        compare(owner_->gradient(i).to(DType::fp32), "grad.fp64." + names_[i].name);
    EXPECT_LE(difference.error, 0.1 * difference.largest) << names_[i].name;
  }
}

}  // namespace
}  // namespace tessera::nn
