// SPDX-License-Identifier: Apache-2.0
// From checkpoints to Hugging Face folders and back.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tessera/base/dtype.hpp"
#include "tessera/comm/communicator.hpp"
#include "tessera/inference/served_model.hpp"

namespace tessera::inference {

struct ExportOptions {
  /// fp32, bf16 or fp16.
  DType dtype = DType::fp32;
  /// Largest bytes of tensor data in one file.
  std::int64_t max_shard_bytes = 5'000'000'000;
  /// An existing model folder is replaced at the end, else it is an error.
  bool replace = false;
  /// bos_token_id and eos_token_id of config.json, unless the checkpoint's model has them.
  std::optional<std::int32_t> end_of_text;
  /// Files that belong to the model, copied: name in the folder -> path.
  std::map<std::string, std::string> copies;
};

struct ConversionReport {
  std::int64_t tensors = 0;
  std::int64_t bytes = 0;  ///< of tensor data
  std::int64_t files = 1;  ///< that hold them
  std::uint64_t weights_checksum = 0;
  /// Tensors of the source that its model has no place for; they are left out.
  std::vector<std::string> unused;
  double seconds = 0;
};

/// Writes the parameters of a checkpoint as a folder that transformers and Tessera read:
/// config.json and safetensors, whole or not at all (checkpoint::write_model_folder). fp32 keeps
/// every bit. Collective: over `group`; the work is divided among the ranks.
/// Errors: not_supported for a model_type that is not known; io when a parameter is missing or its
/// checksum is wrong; as write_model_folder's.
ConversionReport export_model(Communicator& group, const ModelLocation& source,
                              const std::string& folder, const ExportOptions& options = {});

struct ImportOptions {
  /// An existing file is replaced at the end, else it is an error.
  bool replace = false;
  /// Run file text that the checkpoint carries, for example which tokenizer belongs to it.
  std::string config;
};

/// Writes the weights of a Hugging Face folder as a checkpoint in fp32 (exact but for fp64): step
/// 0, no optimizer states, no training state. Collective: over `group`; the work is divided among
/// the ranks. Errors: not_supported for a model_type that is not known; io when a tensor is missing
/// or has another shape.
ConversionReport import_model(Communicator& group, const ModelLocation& source,
                              const std::string& file, const ImportOptions& options = {});

}  // namespace tessera::inference
