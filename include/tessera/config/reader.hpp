// SPDX-License-Identifier: Apache-2.0
// Reads run files strictly: every key is known and checked, or it is an error that says where.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tessera/config/run_config.hpp"

namespace tessera::config {

struct ReadOptions {
  /// `path=value` pairs, as given to --set; the value is YAML, `null` removes what the file says.
  std::vector<std::string> set;
  /// Accept a DeepSpeed configuration alone; model, data and run are then missing.
  bool allow_bare_engine = false;
  /// Training needs a model, data.train and one of run.steps, run.tokens, run.epochs; other uses
  /// take what is there.
  bool for_training = true;
};

/// Reads YAML, or strict JSON when the name ends in .json. Throws invalid_config (unknown, repeated
/// or wrong keys and values, each with file, line and what would be right), not_supported
/// (something known that is not available yet) or io. What depends on the rank count, the tokenizer
/// or the data is filled in by resolve().
RunConfig read_run_file(const std::string& path, const ReadOptions& options = {});

/// As read_run_file, for text in memory; `name` stands in messages and decides by its ending
/// between YAML and JSON.
RunConfig read_run_text(const std::string& text, const std::string& name,
                        const ReadOptions& options = {});

/// What a run file cannot know.
struct Facts {
  /// nullopt: not known (a program that only looks); mesh.data then stands for itself, or for 1.
  std::optional<int> ranks;
  bool bf16_instructions = false;          ///< for `bf16: {enabled: auto}`
  std::optional<std::int64_t> vocabulary;  ///< tokens of the tokenizer, for `vocab_size: auto`
  std::optional<std::int64_t> positions;   ///< longest sequence of a model that is a folder
  std::optional<std::int64_t> sequences;   ///< training sequences, for run.epochs
};

/// Fills what was left open: mesh, batch triangle, sequence length, total steps, `auto` values.
/// May be called again when more facts are known; what still needs a missing fact stays open
/// (vocab_size "auto", sequence_length 0, total_steps 0, total_num_steps absent). Throws
/// invalid_config when the numbers do not fit the ranks.
void resolve(RunConfig& config, const Facts& facts);

/// The smallest job that the file is for: the ranks of comm.nodes, else as many as the mesh takes
/// with the data ranks that it says or that follow from all three batch sizes. Throws
/// invalid_config when they are more than kMostRanks.
int fewest_ranks(const RunConfig& config);

}  // namespace tessera::config
