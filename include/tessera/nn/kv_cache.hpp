// SPDX-License-Identifier: Apache-2.0
// Keys and values of the positions that a model has seen, for text generation.
#pragma once

#include <cstdint>
#include <vector>

#include "tessera/tensor/tensor.hpp"

namespace tessera::nn {

/// All rows have the same length. Bytes: 2 * layers * rows * capacity * width * size of an element.
struct KvCache {
  struct Layer {
    Tensor keys;    // [rows, capacity, width]
    Tensor values;  // [rows, capacity, width]
  };
  std::vector<Layer> layers;
  std::int64_t rows = 0;
  std::int64_t capacity = 0;  // positions that fit
  std::int64_t length = 0;    // positions that are filled
};

}  // namespace tessera::nn
