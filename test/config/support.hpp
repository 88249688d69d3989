// SPDX-License-Identifier: Apache-2.0
// A run file to start from, and what a refused one says.
#pragma once

#include <string>
#include <vector>

#include "tessera/base/error.hpp"
#include "tessera/config/reader.hpp"

namespace tessera::config::testing {

/// The run file of the documentation.
inline const std::string kRunFile = R"(model:
  model_type: gpt2
  n_layer: 6
  n_embd: 384
  n_head: 6
  n_positions: 256
  vocab_size: auto
data:
  train: ["/usr/include/**/*.h"]
  validation: 0.01
  tokenizer: bytes
  sequence_length: 256
run:
  folder: runs/headers
  steps: 300
  seed: 1234
  checkpoint: {every: 100, keep: 2}
  validate: {every: 100, batches: 20}
  recompute: none
  threads: auto
  minutes: 60
mesh: {data: auto, tensor: 1, pipeline: 1, sequence: 1, expert: 1}
comm: {transport: auto, nodes: auto, checked: false, timeout_seconds: 600}
engine:
  train_batch_size: 32
  train_micro_batch_size_per_gpu: 4
  optimizer: {type: AdamW, params: {lr: 6e-4, betas: [0.9, 0.95], weight_decay: 0.1}}
  scheduler: {type: WarmupDecayLR, params: {warmup_num_steps: 20, total_num_steps: 300}}
  gradient_clipping: 1.0
  bf16: {enabled: true}
  zero_optimization: {stage: 3}
)";

inline RunConfig read(const std::string& text, std::vector<std::string> set = {},
                      const std::string& name = "run.yaml") {
  ReadOptions options;
  options.set = std::move(set);
  return read_run_text(text, name, options);
}

inline RunConfig read_example(std::vector<std::string> set = {}) {
  return read(kRunFile, std::move(set));
}

/// A shorter run file, without an engine, to which tests append one.
inline std::string with_engine(const std::string& engine) {
  return "model: some-folder\ndata: {train: [a.txt]}\nrun: {steps: 10}\nengine:\n" + engine;
}

inline Facts on_ranks(int ranks) {
  Facts facts;
  facts.ranks = ranks;
  return facts;
}

/// The message with which `act` fails, after its code: "invalid configuration: …"; "" if it does
/// not fail.
template <typename Act>
std::string refusal(Act&& act) {
  try {
    act();
  } catch (const Error& error) {
    return std::string(to_string(error.code())) + ": " + error.what();
  }
  return "";
}

inline std::string refusal_of(const std::string& text, std::vector<std::string> set = {},
                              const std::string& name = "run.yaml") {
  return refusal([&] { read(text, std::move(set), name); });
}

}  // namespace tessera::config::testing
