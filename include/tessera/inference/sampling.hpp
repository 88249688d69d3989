// SPDX-License-Identifier: Apache-2.0
// Choosing the next token from its logits.
#pragma once

#include <cstdint>
#include <span>

namespace tessera::inference {

/// As the field's tools do it: logits are divided by the temperature, then only the top_k largest
/// stay (0: all), then the smallest set whose probability reaches top_p. temperature 0 takes the
/// largest (the first of equals).
struct SamplingOptions {
  double temperature = 1.0;
  std::int64_t top_k = 0;
  double top_p = 1.0;
  std::uint64_t seed = 1234;
};

/// Throws invalid_argument for a negative temperature or top_k, or top_p outside (0, 1].
void validate(const SamplingOptions& options);

/// `position` numbers the tokens of one text: the choice depends on (seed, position, logits) only,
/// so every rank and every run makes the same one.
std::int32_t sample(std::span<const float> logits, const SamplingOptions& options,
                    std::uint64_t position);

}  // namespace tessera::inference
