// SPDX-License-Identifier: Apache-2.0
// Where the parts of a safetensors file go.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "tessera/checkpoint/safetensors.hpp"

namespace tessera::checkpoint {

struct SafetensorsLayout {
  std::string head;                   // length and header: the file's first bytes
  std::vector<std::size_t> order;     // of the tensors in the file, as indices
  std::vector<std::int64_t> offsets;  // of each tensor's first byte in the file
  std::int64_t file_bytes = 0;
};

/// The layout of write_safetensors; the tensors' `data` are not looked at. `path` is for messages.
SafetensorsLayout lay_out_safetensors(const std::string& path,
                                      std::span<const SafetensorsInput> tensors,
                                      const std::map<std::string, std::string>& metadata);

}  // namespace tessera::checkpoint
