// SPDX-License-Identifier: Apache-2.0
// Writing text token by token, with cached keys and values.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "tessera/inference/sampling.hpp"
#include "tessera/inference/served_model.hpp"

namespace tessera::inference {

struct GenerationOptions {
  std::int64_t max_tokens = 256;
  SamplingOptions sampling;
  /// Generation ends before this token; negative: none.
  std::int32_t end_of_text = -1;
};

/// Continues `prompt` and returns the new tokens; `on_token` sees each as soon as it is chosen.
/// When the model's positions are used up it goes on from the later half of the text. Every rank
/// chooses the same tokens. Collective. Errors: invalid_argument for an empty prompt or a token
/// outside the vocabulary.
std::vector<std::int32_t> generate(ServedModel& served, std::span<const std::int32_t> prompt,
                                   const GenerationOptions& options,
                                   const std::function<void(std::int32_t)>& on_token = {});

}  // namespace tessera::inference
