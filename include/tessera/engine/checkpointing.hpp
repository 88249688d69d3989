// SPDX-License-Identifier: Apache-2.0
// What an Engine can be told about saving and loading, and what it tells of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tessera/checkpoint/writer.hpp"

namespace tessera::engine {

struct SaveOptions {
  /// The file's name without ".h5"; empty: the step, `step-00000100`.
  std::string tag = {};
  /// A JSON text that load_checkpoint() returns; the engine does not read it.
  std::string client_state = {};
  /// The resolved run file, for the file's `config` attribute.
  std::string config = {};
  /// Copy what is to be saved, and write the copy while training goes on.
  bool asynchronous = false;
};

/// A save that ended. Byte and write counts are this rank's.
struct SaveOutcome {
  std::string path;
  std::int64_t step = 0;
  bool asynchronous = false;
  checkpoint::WriteReport report;
  double seconds_blocked = 0;  ///< that training waited for it
  std::string error;           ///< why there is no such file; empty: there is
};

/// DeepSpeed's names and meanings.
struct LoadOptions {
  /// The file's name without ".h5"; empty: the newest whole `step-…` file.
  std::string tag = {};
  /// Weights and nothing else: no counters, no optimizer states, no schedule.
  bool load_module_only = false;
  /// Also exp_avg and the like, the number of updates they have seen, and the loss scale.
  bool load_optimizer_states = true;
  /// Also the schedule's position; without it the schedule begins anew.
  bool load_lr_scheduler_states = true;
  /// Missing and unexpected tensors are an error; without it they are reported, and what the file
  /// lacks keeps its values.
  bool load_module_strict = true;
  /// Another vocabulary: rows that both have are loaded, others keep their values.
  bool allow_vocabulary_change = false;
  /// Check the content before anything is loaded.
  bool verify = true;
};

struct LoadOutcome {
  std::string path;
  std::int64_t step = 0;     ///< of the file
  std::string client_state;  ///< as saved; empty if there was none
  /// Names that the model or its optimizer has and the file lacks, and the reverse:
  /// "transformer.wpe.weight", "optimizer/exp_avg/transformer.wpe.weight".
  std::vector<std::string> missing;
  std::vector<std::string> unexpected;
  /// Newer files that are damaged, with what is wrong.
  std::vector<std::string> damaged;
};

}  // namespace tessera::engine
