// SPDX-License-Identifier: Apache-2.0
// The AdamW step against a loop that moves the same bytes and computes nothing, and against the
// separate passes (unscale, update, copy out) that it fuses. Arrays are far larger than the cache.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tessera/base/dtype.hpp"
#include "tessera/device/buffer.hpp"
#include "tessera/kernels/elementwise.hpp"
#include "tessera/optim/update_rule.hpp"

#include "support/bench.hpp"

namespace tessera::bench {
namespace {

constexpr std::int64_t kCount = 16 << 20;
constexpr std::int64_t kChunk = 16384;

#if defined(__x86_64__) && !defined(__clang__)
#define TESSERA_BENCH_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define TESSERA_BENCH_CLONES
#endif

// Adding 1 keeps the compiler from dropping the load or the store; it costs nothing next to memory.
TESSERA_BENCH_CLONES void stream_fp32(float* __restrict w, const float* __restrict g,
                                      float* __restrict m, float* __restrict v, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    w[i] += g[i];
    m[i] += 1;
    v[i] += 1;
  }
}

TESSERA_BENCH_CLONES void stream_split(std::uint16_t* __restrict high,
                                       std::uint16_t* __restrict low,
                                       const std::uint16_t* __restrict g, float* __restrict m,
                                       float* __restrict v, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    high[i] = static_cast<std::uint16_t>(high[i] + g[i]);
    low[i] = static_cast<std::uint16_t>(low[i] + 1);
    m[i] += 1;
    v[i] += 1;
  }
}

template <typename Body>
void in_chunks(Body&& body) {
#pragma omp parallel for schedule(static)
  for (std::int64_t i = 0; i < kCount; i += kChunk) body(i);
}

template <typename T>
class Array {
 public:
  explicit Array(float value = 0)
      : memory_(allocate(sizeof(T) * kCount, Device{}, Purpose::workspace)) {
    // First touched by the threads that will use it.
    in_chunks([&](std::int64_t i) {
      for (std::int64_t k = i; k < i + kChunk; ++k) data()[k] = T(value);
    });
  }
  T* data() { return memory_.as<T>(); }

 private:
  Buffer memory_;
};

optim::Slice slice(float* const* states) {
  return {.parameter = nullptr,
          .gradient = nullptr,
          .gradient_type = DType::fp32,
          .gradient_scale = 0.5f,
          .states = {states, 2},
          .count = kCount,
          .lr = 1e-3,
          .weight_decay = 0.1,
          .step = 10};
}

void report(Program& program, const std::string& name, const CaseResult& result, double bytes) {
  if (result.variants.empty()) return;
  program.value(name + ".bytes_per_parameter", bytes);
  program.value(name + ".ratio_to_stream", result["adamw"].speed_ratio);
  program.value(name + ".gigaparameters_per_s",
                static_cast<double>(kCount) / result["adamw"].median * 1e-9);
}

void measure_fp32(Program& program, const optim::UpdateRule& rule) {
  if (!program.wants("fp32")) return;
  Array<float> w(1), g(0.01f), m, v(1);
  float* states[] = {m.data(), v.data()};
  auto fused = slice(states);
  fused.parameter = w.data();
  fused.gradient = g.data();
  auto unscaled = fused;
  unscaled.gradient_scale = 1;
  constexpr double kBytes = 28;
  const auto stream = [&] {
    in_chunks([&](std::int64_t i) {
      stream_fp32(w.data() + i, g.data() + i, m.data() + i, v.data() + i, kChunk);
    });
  };
  const auto passes = [&] {
    kernels::scale(Stream(), g.data(), 1.0f, g.data(), kCount, DType::fp32);
    rule.update(Stream(), unscaled);
  };
  const auto result =
      program.measure({.name = "fp32",
                       .variants = {{.name = "stream", .run = stream},
                                    {.name = "adamw", .run = [&] { rule.update(Stream(), fused); }},
                                    {.name = "passes", .run = passes}},
                       .work = kBytes * kCount,
                       .unit = "byte"},
                      0.5);
  report(program, "fp32", result, kBytes);
}

void measure_split(Program& program, const optim::UpdateRule& rule) {
  if (!program.wants("split")) return;
  Array<std::uint16_t> high, low, g;
  Array<float> m, v(1), wide(1), wide_g;
  float* states[] = {m.data(), v.data()};
  auto fused = slice(states);
  fused.parameter = high.data();
  fused.low = low.data();
  fused.gradient = g.data();
  fused.gradient_type = DType::bf16;
  auto unscaled = slice(states);
  unscaled.parameter = wide.data();
  unscaled.gradient = wide_g.data();
  unscaled.gradient_scale = 1;
  constexpr double kBytes = 26;
  const auto stream = [&] {
    in_chunks([&](std::int64_t i) {
      stream_split(high.data() + i, low.data() + i, g.data() + i, m.data() + i, v.data() + i,
                   kChunk);
    });
  };
  // What a design with a whole fp32 master does: widen, unscale, update, narrow.
  const auto passes = [&] {
    kernels::cast(Stream(), g.data(), DType::bf16, wide_g.data(), DType::fp32, kCount);
    kernels::scale(Stream(), wide_g.data(), 0.5f, wide_g.data(), kCount, DType::fp32);
    rule.update(Stream(), unscaled);
    kernels::cast(Stream(), wide.data(), DType::fp32, high.data(), DType::bf16, kCount);
  };
  const auto result =
      program.measure({.name = "split",
                       .variants = {{.name = "stream", .run = stream},
                                    {.name = "adamw", .run = [&] { rule.update(Stream(), fused); }},
                                    {.name = "passes", .run = passes}},
                       .work = kBytes * kCount,
                       .unit = "byte"},
                      0.5);
  report(program, "split", result, kBytes);
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  using namespace tessera;
  bench::Program program("optim_optimizer", argc, argv);
  const auto rule = optim::make_update_rule({});
  bench::measure_fp32(program, *rule);
  bench::measure_split(program, *rule);
  return program.finish();
}
