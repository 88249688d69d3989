// SPDX-License-Identifier: Apache-2.0
// The weights of a Hugging Face folder: one safetensors file or several with an index.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tessera/base/dtype.hpp"
#include "tessera/base/shape.hpp"
#include "tessera/checkpoint/safetensors.hpp"

namespace tessera::checkpoint {

/// `model.safetensors`, or `model.safetensors.index.json` and its shards, opened and checked.
/// Errors: io naming the folder, shard or tensor: nothing there, a shard missing, a tensor that
/// the index lists but its shard lacks, a name in two shards.
class ModelWeights {
 public:
  explicit ModelWeights(const std::string& folder);
  /// True if the folder has one of the two files (and may be opened).
  static bool present(const std::string& folder);

  const std::string& folder() const { return folder_; }
  /// Sorted.
  std::vector<std::string> names() const;
  bool contains(const std::string& name) const { return places_.contains(name); }
  const Shape& shape(const std::string& name) const;
  DType dtype(const std::string& name) const;
  void read(const std::string& name, DType target, void* out) const;
  /// Elements [begin, begin + count) of the flattened tensor.
  void read_range(const std::string& name, std::int64_t begin, std::int64_t count, DType target,
                  void* out) const;

  /// The stored name of a parameter that models save with and without a prefix: `name` itself,
  /// else `name` without `prefix`, else with it; "" if none is there. For GPT-2 the prefix is
  /// "transformer.".
  std::string find(const std::string& name, std::string_view prefix) const;

 private:
  const SafetensorsFile& file_of(const std::string& name) const;

  std::string folder_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, std::size_t> places_;  // name -> index in files_
};

}  // namespace tessera::checkpoint
