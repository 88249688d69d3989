// SPDX-License-Identifier: Apache-2.0
// Moving a model's state between files and the ranks that hold its parts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tessera/checkpoint/model_weights.hpp"
#include "tessera/checkpoint/reader.hpp"
#include "tessera/checkpoint/writer.hpp"
#include "tessera/nn/model.hpp"
#include "tessera/optim/parameter_groups.hpp"
#include "tessera/zero/partitioned_optimizer.hpp"

namespace tessera::parallel {

/// Adds the model's parameters to the optimizer, unit by unit; both index them in the same order
/// afterwards.
void add_parameters(const nn::Network& model, zero::PartitionedOptimizer& optimizer,
                    const optim::ParameterGroupOptions& groups = {});

struct LoadRules {
  /// What only one side has is an error; else what the file lacks keeps its values.
  bool strict = true;
  /// The leading dimension of a parameter may differ where it is the vocabulary on both sides; what
  /// both have is loaded, the rest keeps its values.
  bool allow_vocabulary_change = false;
};

/// Names without their counterpart: "transformer.wpe.weight",
/// "optimizer/exp_avg/transformer.wpe.weight".
struct NameDifference {
  std::vector<std::string> missing;     ///< in the file
  std::vector<std::string> unexpected;  ///< in the model and its optimizer

  bool empty() const { return missing.empty() && unexpected.empty(); }
  /// For people: all of a few, else some and how many more.
  std::string to_string() const;
};

/// Local; the same on every rank.
NameDifference compare_parameters(const nn::Network& model, const checkpoint::Reader& reader);
NameDifference compare_optimizer_states(const nn::Network& model,
                                        const zero::PartitionedOptimizer& optimizer,
                                        const checkpoint::Reader& reader);

// Each rank fills or reads only what it holds. Collective: all of them, over the optimizer's group;
// errors are the same on every rank.

/// Fresh weights that depend on `seed` alone, not on mesh or stage.
void initialize(const nn::Network& model, zero::PartitionedOptimizer& optimizer,
                std::uint64_t seed);
/// Weights of a Hugging Face folder. Errors: io naming the tensor that is missing or has another
/// shape.
void load_parameters(const nn::Network& model, zero::PartitionedOptimizer& optimizer,
                     const checkpoint::ModelWeights& weights);
/// Parameters of a checkpoint. Errors: io for those that have another shape there, and, if strict,
/// for names that one side lacks.
void load_parameters(const nn::Network& model, zero::PartitionedOptimizer& optimizer,
                     const checkpoint::Reader& reader, const LoadRules& rules = {});
/// exp_avg and the like of a training checkpoint; errors as above.
void load_optimizer_states(const nn::Network& model, zero::PartitionedOptimizer& optimizer,
                           const checkpoint::Reader& reader, const LoadRules& rules = {});

/// What a checkpoint holds of model and optimizer, with this rank's pieces. Local; valid until the
/// next step.
std::vector<checkpoint::TensorRecord> records(const nn::Network& model,
                                              zero::PartitionedOptimizer& optimizer);

/// Sum over the logical tensors (doc/checkpoint-format.md): the same on any mesh and in any stage.
std::uint64_t weights_checksum(const nn::Network& model,
                               const zero::PartitionedOptimizer& optimizer);

}  // namespace tessera::parallel
