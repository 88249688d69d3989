// SPDX-License-Identifier: Apache-2.0
// Bytes that one rank will hold, before anything runs: the formulas of doc/numerics.md.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tessera/config/run_config.hpp"
#include "tessera/nn/model.hpp"
#include "tessera/zero/flat_layout.hpp"

namespace tessera::engine {

struct Estimate {
  std::int64_t parameters = 0;
  std::int64_t gradients = 0;
  std::int64_t optimizer = 0;
  std::int64_t gathered = 0;  // stage 3: the largest units in use and ahead
  std::int64_t buckets = 0;
  std::int64_t activations = 0;
  std::int64_t snapshot = 0;  // the copy that an asynchronous save writes
  std::int64_t total() const {
    return parameters + gradients + optimizer + gathered + buckets + activations + snapshot;
  }
};

struct EstimateInput {
  int stage = 0;
  DType dtype = DType::fp32;
  std::int64_t accumulation = 1;
  DType accumulation_dtype = DType::fp32;
  bool reduce_every_micro_batch = false;
  std::optional<DType> communication_dtype{};  // nullopt: dtype
  std::int64_t reduce_bucket_size = 0;
  int states = 2;  // fp32 arrays of the optimizer: 2 for Adam
  std::int64_t prefetch_elements = 0;
  bool asynchronous_saves = false;
};

/// Model states of one rank for a partition over layout.ranks(); activations are the caller's to
/// add.
Estimate estimate_states(const zero::FlatLayout& layout, const EstimateInput& input);

zero::FlatLayout make_layout(const nn::Model& model, int ranks);
EstimateInput estimate_input(const config::RunConfig& config);
/// States and activations of a run's rank.
Estimate estimate_run(const nn::Model& model, const config::RunConfig& config, int data_ranks,
                      int stage);

}  // namespace tessera::engine
