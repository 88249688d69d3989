// SPDX-License-Identifier: Apache-2.0
// A run file as plain values: what every other layer reads instead of YAML.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tessera/config/engine_config.hpp"

namespace tessera::config {

/// Where a value came from.
struct Source {
  enum class Kind { file, set, fallback, derived };
  Kind kind = Kind::fallback;
  std::string file;    ///< Kind::file
  int line = 0;        ///< Kind::file, from 1
  std::string reason;  ///< Kind::derived: from what

  /// "run.yaml:12", "--set", "default", "derived: train_batch_size / …".
  std::string to_string() const;
};

/// One value of the run file under its full path.
struct Entry {
  std::string path;   ///< "engine.zero_optimization.stage"
  std::string value;  ///< JSON text
  Source source;
  bool automatic = false;  ///< the file says `auto` (or nothing, where that means the same)
};

struct ModelSource {
  std::string folder;  ///< a folder with config.json; empty when the model is inline
  /// Inline: a JSON object with Hugging Face's keys, defaults filled in. `vocab_size` is "auto"
  /// until resolve() learns the tokenizer's size.
  std::string json;
  bool is_inline() const { return folder.empty(); }
  bool operator==(const ModelSource&) const = default;
};

/// Paths are relative to the working directory.
struct DataConfig {
  std::vector<std::string> train;             ///< files, globs, prefixes of .bin/.idx pairs
  double validation_fraction = 0;             ///< held back from the end; in [0, 1)
  std::vector<std::string> validation_files;  ///< instead of a fraction
  std::string tokenizer = "bytes";            ///< "bytes", a file or a folder
  std::int64_t sequence_length = 0;           ///< 0: the model's longest, until resolve() knows it
  std::string field = "text";                 ///< of .jsonl files
  bool operator==(const DataConfig&) const = default;
};

enum class OnSaveError { go_on, stop };
/// "continue", "stop"
const char* to_string(OnSaveError on_error);

struct CheckpointConfig {
  std::int64_t every = 1000;  ///< steps; 0: only at the end
  int keep = 2;               ///< newest ones that stay, at least 1
  bool asynchronous = false;  ///< write while training goes on
  bool verify = true;         ///< recompute checksums before continuing from one
  OnSaveError on_error = OnSaveError::go_on;
  bool operator==(const CheckpointConfig&) const = default;
};

struct ValidateConfig {
  std::int64_t every = 0;    ///< steps; 0: only at the end
  std::int64_t batches = 0;  ///< global batches of each validation; 0: all there are
  bool operator==(const ValidateConfig&) const = default;
};

enum class Recompute { none, selective, full };
const char* to_string(Recompute recompute);

/// Both ends belong to it.
struct StepRange {
  std::int64_t first = 0;
  std::int64_t last = 0;
  bool operator==(const StepRange&) const = default;
};

struct RunSection {
  std::string folder;
  std::optional<std::int64_t> steps;   ///< exactly one of steps, tokens, epochs is there
  std::optional<std::int64_t> tokens;  ///< targets
  std::optional<double> epochs;
  std::int64_t total_steps = 0;  ///< from the three above; 0 while unknown (see Facts::sequences)
  std::uint64_t seed = 1234;
  CheckpointConfig checkpoint;
  ValidateConfig validate;
  Recompute recompute = Recompute::none;
  int recompute_every = 1;         ///< of blocks 0, n, 2n, ... only
  bool tf32 = false;               ///< of fp32 products on GPUs
  std::string attention = "auto";  ///< auto, cudnn or own: whose kernels compute it on GPUs
  bool measure_products = false;   ///< choose the algorithms of products on GPUs by their time
  bool cuda_graph = false;         ///< record a micro-batch's work on a GPU and launch it as one
  int threads = 0;                 ///< per rank; 0: divide the node's cores
  std::optional<double> minutes;
  std::int64_t log_every = 10;        ///< steps between progress lines
  std::optional<StepRange> timeline;  ///< steps to record
  bool operator==(const RunSection&) const = default;
};

struct MeshConfig {
  int data = 0;  ///< 0: all ranks that the other axes leave, until resolve()
  int tensor = 1;
  int pipeline = 1;
  int sequence = 1;
  int expert = 1;
  std::string sequence_attention = "auto";  ///< auto, ulysses or ring
  bool sequence_parallel = false;           ///< token shards between products of tensor ranks
  bool operator==(const MeshConfig&) const = default;
};

struct PipelineConfig {
  std::string schedule = "1f1b";
  int chunks = 0;                        ///< stages of a rank; 0: as the schedule has it
  std::string partition = "parameters";  ///< or uniform, type:PATTERN, or "4,3,3,2"
  bool keep_gathered = true;             ///< ZeRO stage 3: from the first use to the step
  bool operator==(const PipelineConfig&) const = default;
};

struct CommConfig {
  std::string transport = "auto";                      ///< "auto", "self", "shm", "mpi" or "hybrid"
  std::string device_transport = "auto";               ///< "auto", "nccl" or "mpi"
  std::optional<std::vector<std::vector<int>>> nodes;  ///< ranks of each node; none: as MPI says
  bool checked = false;
  double timeout_seconds = 600;
  bool reduce_every_micro_batch = false;
  bool operator==(const CommConfig&) const = default;
};

struct RunConfig {
  ModelSource model;
  DataConfig data;
  RunSection run;
  MeshConfig mesh;
  PipelineConfig pipeline;
  CommConfig comm;
  EngineConfig engine;
  std::string device = "auto";  ///< "auto", "cpu" or "cuda"

  std::string file;          ///< the run file, as it was named
  bool bare_engine = false;  ///< the file was a DeepSpeed configuration alone: only `engine` counts
  bool for_training = true;  ///< as read (ReadOptions::for_training)
  /// Every supported value and everything that was given, in the order of the documentation.
  std::vector<Entry> entries;
  /// One line for each given key that has no effect here, with the reason. For the log.
  std::vector<std::string> notices;

  /// Compares the values, not where they came from.
  bool operator==(const RunConfig& other) const;
};

}  // namespace tessera::config
