// SPDX-License-Identifier: Apache-2.0
// A small model without mathematics: what an engine would do with the optimizer, and results that
// can be compared bit for bit.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tessera/comm/communicator.hpp"
#include "tessera/zero/partitioned_optimizer.hpp"

namespace tessera::zero::testing {

struct ParameterSpec {
  std::string name;
  Shape shape;
  ParameterOptions options{};
};
struct UnitSpec {
  std::string name;
  std::vector<ParameterSpec> parameters;
};
using ModelSpec = std::vector<UnitSpec>;

/// Prime sizes, tensors smaller than the rank count, a scalar, an empty tensor, an empty unit, a
/// frozen parameter.
ModelSpec awkward_model();

/// fp32 values of every parameter, whole, as bits.
using Values = std::vector<std::vector<std::uint32_t>>;

struct Outcome {
  Values master, exp_avg, exp_avg_sq;
  std::vector<double> norms;
  bool operator==(const Outcome&) const = default;
};

float initial_value(int parameter, std::int64_t index);
/// Gradient of an element on one rank: depends on the weight, so that steps follow from each other.
float gradient_value(float weight, int rank, std::int64_t step, int micro_batch, int parameter,
                     std::int64_t index);

/// AdamW with decay and clipping that binds in some steps.
Options usual_options(int stage, DType dtype);

void declare(PartitionedOptimizer& optimizer, const ModelSpec& model);
void load_initial_values(PartitionedOptimizer& optimizer);
struct MicroBatchOptions {
  /// Whether backward writes the parameter.
  std::function<bool(int)> used = [](int) { return true; };
  /// That gradients depend on; nullopt: the updates so far.
  std::optional<std::int64_t> step{};
  /// The last element of parameter 3 on the last rank is NaN.
  bool spoiled = false;
};
/// One forward and backward over the units.
void micro_batch(PartitionedOptimizer& optimizer, int index, const MicroBatchOptions& options = {});
StepResult one_step(PartitionedOptimizer& optimizer, const StepInput& input = {});
/// Collective.
Outcome outcome(const PartitionedOptimizer& optimizer);
Outcome train(Communicator& group, const Options& options, int steps,
              const ModelSpec& model = awkward_model());

/// Left: what plain AdamW in fp64 makes of the same model on the same number of ranks.
std::vector<std::vector<double>> train_in_fp64(int ranks, const Options& options, int steps,
                                               const ModelSpec& model, std::vector<double>* norms);

float to_float(std::uint32_t bits);

}  // namespace tessera::zero::testing
