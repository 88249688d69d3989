// SPDX-License-Identifier: Apache-2.0
// A batch to train on where only the time matters.
#pragma once

#include <cstdint>

#include "tessera/nn/model.hpp"

namespace tessera::bench {

/// What the tokens are does not change the time.
inline nn::Batch some_tokens(std::int64_t rows, std::int64_t positions, std::int64_t vocabulary) {
  nn::Batch batch;
  batch.ids = Tensor({rows, positions}, DType::int32);
  batch.targets = Tensor({rows, positions}, DType::int32);
  for (std::int64_t i = 0; i < rows * positions; ++i) {
    batch.ids.as<std::int32_t>()[i] = static_cast<std::int32_t>(i * 7 % vocabulary);
    batch.targets.as<std::int32_t>()[i] = static_cast<std::int32_t>((i + 1) * 7 % vocabulary);
  }
  return batch;
}

}  // namespace tessera::bench
