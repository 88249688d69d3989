// SPDX-License-Identifier: Apache-2.0
// The run file of a model that trains in a moment.
#pragma once

#include <string>

#include <fmt/format.h>

#include "support/program.hpp"

namespace tessera::test {

/// Writes `<folder>/<name>.yaml`, a run of 6 steps in `<folder>/<name>`; returns its path.
inline std::string tiny_run(const TemporaryFolder& folder, const std::string& name) {
  constexpr const char* kRun =
      R"(model: {{model_type: gpt2, n_layer: 2, n_embd: 16, n_head: 2, n_positions: 16, vocab_size: auto}}
data: {{train: ["{}"], validation: 0.05, tokenizer: bytes, sequence_length: 16}}
run: {{folder: "{}", steps: 6, seed: 7, log_every: 1, checkpoint: {{every: 3, keep: 2}}, validate: {{every: 3, batches: 2}}}}
engine:
  train_batch_size: 8
  optimizer: {{type: AdamW, params: {{lr: 1e-3}}}}
  scheduler: {{type: WarmupDecayLR, params: {{warmup_num_steps: 2, total_num_steps: 6}}}}
  zero_optimization: {{stage: 3}}
)";
  const std::string path = folder / (name + ".yaml");
  spit(path, fmt::format(kRun, TESSERA_TEST_DATA "/text/tinyshakespeare.txt", folder / name));
  return path;
}

}  // namespace tessera::test
