// SPDX-License-Identifier: Apache-2.0
// A small model of test/data/models with 20 training steps that PyTorch made in fp64.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tessera/base/file.hpp"
#include "tessera/checkpoint/model_weights.hpp"
#include "tessera/checkpoint/safetensors.hpp"
#include "tessera/nn/model.hpp"

namespace tessera::test {

class TinyModel {
 public:
  static constexpr std::int64_t kSteps = 20, kRows = 4, kPositions = 48;

  explicit TinyModel(const std::string& name = "gpt2-tiny")
      : folder_(TESSERA_TEST_DATA "/models/" + name),
        reference_(folder_ + "/reference.safetensors") {
    ids_ = integers("input_ids");
    labels_ = integers("labels");
  }

  const std::string& folder() const { return folder_; }
  const checkpoint::SafetensorsFile& reference() const { return reference_; }
  checkpoint::ModelWeights weights() const { return checkpoint::ModelWeights(folder_); }

  std::unique_ptr<nn::Model> model(const nn::ModelOptions& options = {}) const {
    return nn::make_model(read_text(folder_ + "/config.json"), options);
  }

  /// Rows [first, first + rows) of a step; labels are shifted here: position t predicts t + 1.
  nn::Batch batch(std::int64_t step, std::int64_t first, std::int64_t rows) const {
    nn::Batch batch;
    batch.ids = Tensor({rows, kPositions}, DType::int32);
    batch.targets = Tensor({rows, kPositions}, DType::int32);
    batch.first_row = first;
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t t = 0; t < kPositions; ++t) {
        const auto from = static_cast<std::size_t>(((step * kRows) + first + r) * kPositions + t);
        batch.ids.as<std::int32_t>()[r * kPositions + t] = static_cast<std::int32_t>(ids_[from]);
        batch.targets.as<std::int32_t>()[r * kPositions + t] =
            t + 1 < kPositions ? static_cast<std::int32_t>(labels_[from + 1]) : -1;
      }
    return batch;
  }

  std::vector<double> doubles(const std::string& name) const {
    std::vector<double> values(static_cast<std::size_t>(reference_.entry(name).shape.numel()));
    reference_.read(name, DType::fp64, values.data());
    return values;
  }

 private:
  std::vector<std::int64_t> integers(const std::string& name) const {
    std::vector<std::int64_t> values(
        static_cast<std::size_t>(reference_.entry(name).shape.numel()));
    reference_.read(name, DType::int64, values.data());
    return values;
  }

  std::string folder_;
  checkpoint::SafetensorsFile reference_;
  std::vector<std::int64_t> ids_, labels_;
};

}  // namespace tessera::test
