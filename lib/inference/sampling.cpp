// SPDX-License-Identifier: Apache-2.0
#include "tessera/inference/sampling.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/random.hpp"

namespace tessera::inference {
namespace {

constexpr std::uint64_t kSamplingStream = 0x73616d706c65;  // "sample"

struct Candidate {
  std::int32_t token;
  double weight;
};

// Descending by weight; equal ones by token, so that the order never depends on the sort.
bool before(const Candidate& a, const Candidate& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.token < b.token;
}

std::vector<Candidate> weigh(std::span<const float> logits, double temperature) {
  const float top = *std::max_element(logits.begin(), logits.end());
  std::vector<Candidate> candidates(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i)
    candidates[i] = {
        static_cast<std::int32_t>(i),
        std::exp((static_cast<double>(logits[i]) - static_cast<double>(top)) / temperature)};
  return candidates;
}

void keep_top_k(std::vector<Candidate>& candidates, std::int64_t k) {
  if (k <= 0 || k >= static_cast<std::int64_t>(candidates.size())) return;
  std::nth_element(candidates.begin(), candidates.begin() + k, candidates.end(), before);
  candidates.resize(static_cast<std::size_t>(k));
}

double total(const std::vector<Candidate>& candidates) {
  return std::accumulate(candidates.begin(), candidates.end(), 0.0,
                         [](double sum, const Candidate& c) { return sum + c.weight; });
}

void keep_top_p(std::vector<Candidate>& candidates, double p) {
  if (p >= 1) return;
  const double limit = p * total(candidates);
  double sum = 0;
  std::size_t kept = 0;
  while (kept < candidates.size() && sum < limit) sum += candidates[kept++].weight;
  candidates.resize(std::max<std::size_t>(1, kept));
}

}  // namespace

void validate(const SamplingOptions& options) {
  TESSERA_CHECK(
      options.temperature >= 0 && std::isfinite(options.temperature), Code::invalid_argument,
      fmt::format("temperature {} is not a number from 0 on; 0 is greedy, 1 samples from the model",
                  options.temperature));
  TESSERA_CHECK(options.top_k >= 0, Code::invalid_argument,
                fmt::format("top-k {} is negative; 0 keeps every token", options.top_k));
  TESSERA_CHECK(options.top_p > 0 && options.top_p <= 1, Code::invalid_argument,
                fmt::format("top-p {} is not in (0, 1]", options.top_p));
}

std::int32_t sample(std::span<const float> logits, const SamplingOptions& options,
                    std::uint64_t position) {
  if (options.temperature == 0)
    return static_cast<std::int32_t>(
        std::distance(logits.begin(), std::max_element(logits.begin(), logits.end())));
  std::vector<Candidate> candidates = weigh(logits, options.temperature);
  keep_top_k(candidates, options.top_k);
  std::sort(candidates.begin(), candidates.end(), before);
  keep_top_p(candidates, options.top_p);
  const RandomStream random(options.seed, kSamplingStream);
  double left = static_cast<double>(random.bits(position)) * 0x1p-32 * total(candidates);
  for (const Candidate& candidate : candidates) {
    left -= candidate.weight;
    if (left < 0) return candidate.token;
  }
  return candidates.back().token;
}

}  // namespace tessera::inference
