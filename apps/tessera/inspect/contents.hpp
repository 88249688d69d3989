// SPDX-License-Identifier: Apache-2.0
// One view of everything that holds tensors: checkpoints, model folders, safetensors files.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "tessera/base/shape.hpp"

namespace tessera::app {

using Json = nlohmann::ordered_json;

struct TensorEntry {
  std::string group;  // "parameters", "optimizer/exp_avg" …
  std::string name;
  std::string path;  // what the file calls it
  std::string type;  // as the file says
  Shape shape;
  std::int64_t bytes = 0;
};

/// A file or folder with tensors, read by one rank.
class Contents {
 public:
  virtual ~Contents() = default;

  /// Parameters first, layers in the order of their numbers.
  const std::vector<TensorEntry>& tensors() const { return tensors_; }
  /// kind, file, and what the file says of itself.
  const Json& facts() const { return facts_; }
  bool is_checkpoint() const { return facts_["kind"] == "checkpoint"; }
  /// Elements [begin, begin + count) of a flattened tensor.
  virtual void read(const TensorEntry& entry, std::int64_t begin, std::int64_t count,
                    double* out) const = 0;

 protected:
  /// Brings the tensors into their order; at the end of construction.
  void sort();

  std::vector<TensorEntry> tensors_;
  Json facts_;
};

/// Opens a checkpoint, a run's folder (its newest checkpoint), a Hugging Face folder, a safetensors
/// file, or an indexed token file (which has no tensors). Errors: io saying what was looked for.
std::unique_ptr<Contents> open_contents(const std::string& name);

/// True if "h.2.x" comes before "h.10.x": numbers inside names count as numbers.
bool natural_less(const std::string& a, const std::string& b);

}  // namespace tessera::app
