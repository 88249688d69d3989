// SPDX-License-Identifier: Apache-2.0
// Start values of parameters, element by element from counter-based random numbers.
#include <algorithm>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/random.hpp"
#include "tessera/nn/parameter.hpp"

namespace tessera::nn {
namespace {

/// Fewer are done before other threads have woken up.
constexpr std::int64_t kParallelElements = 4096;

/// FNV-1a, mixed: short names differ in few bits.
std::uint64_t stream_of(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char letter : name) {
    hash ^= static_cast<unsigned char>(letter);
    hash *= 0x100000001b3u;
  }
  return mix(hash, name.size());
}

}  // namespace

void initialize(const Parameter& parameter, std::string_view name, std::uint64_t seed,
                std::int64_t begin, std::int64_t count, float* out) {
  TESSERA_CHECK(0 <= begin && 0 <= count && begin + count <= parameter.shape().numel(),
                Code::invalid_argument,
                fmt::format("elements {} to {} of '{}' {}", begin, begin + count, name,
                            parameter.shape().to_string()));
  if (parameter.initialization.kind != Initialization::Kind::normal) {
    const bool ones = parameter.initialization.kind == Initialization::Kind::ones;
    std::fill_n(out, count, ones ? 1.0f : 0.0f);
    return;
  }
  const RandomStream random(seed, stream_of(name));
  const float deviation = parameter.initialization.deviation;
  for_each_run(parameter.partition, begin, count,
               [&](std::int64_t local, std::int64_t logical, std::int64_t length) {
                 float* const target = out + (local - begin);
#pragma omp parallel for schedule(static) if (length >= kParallelElements)
                 for (std::int64_t i = 0; i < length; ++i)
                   target[i] = deviation * random.normal(static_cast<std::uint64_t>(logical + i));
               });
}

}  // namespace tessera::nn
