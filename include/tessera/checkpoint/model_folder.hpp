// SPDX-License-Identifier: Apache-2.0
// Writing the weights of a checkpoint as a Hugging Face folder.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "tessera/base/dtype.hpp"
#include "tessera/checkpoint/reader.hpp"
#include "tessera/comm/communicator.hpp"

namespace tessera::checkpoint {

/// A dataset of a checkpoint ("parameters/<name>") and its name in the folder.
struct FolderTensor {
  std::string dataset;
  std::string name;
};

struct FolderOptions {
  /// fp32, bf16 or fp16; values round to nearest even.
  DType dtype = DType::fp32;
  /// Of tensor data in one file; a larger tensor has a file of its own.
  std::int64_t max_shard_bytes = 5'000'000'000;
  /// An existing model folder is replaced at the end, else it is an error before anything is read.
  bool replace = false;
  /// Further files by name: their texts, and the paths they are copied from.
  std::map<std::string, std::string> texts;
  std::map<std::string, std::string> copies;
  /// Bound of the buffers that tensor data pass through on each rank.
  std::int64_t staging_bytes = std::int64_t{4} << 20;
};

struct FolderReport {
  std::int64_t shards = 0;
  std::int64_t bytes = 0;  ///< of tensor data, as metadata.total_size of an index says
  double seconds = 0;
};

/// Writes `model.safetensors`, or where that would be larger than max_shard_bytes
/// `model-00001-of-0000N.safetensors` … with `model.safetensors.index.json`, and the further files.
/// The tensors' order decides how they are divided; files are laid out as the format's own writer
/// does it. The elements of all files are divided evenly among the ranks, which must see the same
/// file system.
///
/// Everything is written to "<folder>.tmp-…", flushed and renamed at the end: the folder is whole
/// or not there. The checksums of all tensors are recomputed on the way, so damaged weights are
/// never exported.
/// Collective: over `group`; errors are the same on every rank.
/// Errors: io when the folder exists, the disk is full, or a dataset is damaged (named, with both
/// checksums); invalid_argument when a finite value has no finite value in `dtype` (named), or what
/// stands in the way is not a model folder.
FolderReport write_model_folder(Communicator& group, const Reader& source,
                                std::span<const FolderTensor> tensors, const std::string& folder,
                                const FolderOptions& options = {});

/// Which tensors share a file, as indices into `bytes`: in order, a new file when the next tensor
/// would make it larger than `max_shard_bytes`, as Hugging Face's writer does it.
std::vector<std::vector<std::size_t>> divide_into_shards(std::span<const std::int64_t> bytes,
                                                         std::int64_t max_shard_bytes);

}  // namespace tessera::checkpoint
