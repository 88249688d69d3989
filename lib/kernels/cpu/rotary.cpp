// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding on the CPU.
#include "tessera/kernels/rotary.hpp"

#include <cmath>
#include <vector>

#include <fmt/format.h>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cuda/operations.hpp"
#include "kernels/dispatch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rotary.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
#include "kernels/cpu/vector-inl.hpp"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {

template <typename T>
void rotate_head(T* x, const float* cosines, const float* sines, std::int64_t half) {
  const FloatTag tag;
  for_each_vector(0, half, [=](std::int64_t i, auto extent) {
    const auto a = load(tag, x + i, extent), b = load(tag, x + half + i, extent);
    const auto c = load(tag, cosines + i, extent), s = load(tag, sines + i, extent);
    store(tag, hn::NegMulAdd(b, s, hn::Mul(a, c)), x + i, extent);
    store(tag, hn::MulAdd(a, s, hn::Mul(b, c)), x + half + i, extent);
  });
}

template <typename T>
void rotate_rows(const kernels::Rotary& args, std::int64_t first, std::int64_t last) {
  const std::int64_t half = args.rotary_dim / 2;
  std::vector<float> cosines(static_cast<size_t>(half)), sines(static_cast<size_t>(half));
  for (std::int64_t r = first; r < last; ++r) {
    for (std::int64_t i = 0; i < half; ++i) {
      // In fp64: at position 10^5 an fp32 angle has two correct digits after the point.
      const double angle =
          static_cast<double>(args.positions[r]) * static_cast<double>(args.inverse_frequency[i]);
      const auto at = static_cast<size_t>(i);
      cosines[at] = static_cast<float>(std::cos(angle));
      sines[at] = static_cast<float>(args.inverse ? -std::sin(angle) : std::sin(angle));
    }
    T* row = static_cast<T*>(args.x) + r * args.row_stride;
    for (std::int64_t h = 0; h < args.heads; ++h)
      rotate_head(row + h * args.head_dim, cosines.data(), sines.data(), half);
  }
}

void rotary_cpu(const kernels::Rotary& args) {
  kernels::dispatch_float(args.dtype, "rotary", [&]<typename T>(T) {
    kernels::parallel_rows(
        args.rows, args.heads * args.head_dim,
        [&](std::int64_t first, std::int64_t last) { rotate_rows<T>(args, first, last); });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(rotary_cpu);

}  // namespace

namespace kernels {

void rotary(const Stream& stream, const Rotary& args) {
  TESSERA_CHECK(args.rotary_dim % 2 == 0 && args.rotary_dim <= args.head_dim,
                Code::invalid_argument,
                fmt::format("rotary: rotary_dim {} must be even and at most head_dim {}",
                            args.rotary_dim, args.head_dim));
  if (!stream.device().is_cpu()) return cuda::rotary(stream, args);
  HWY_DYNAMIC_DISPATCH(rotary_cpu)(args);
}

}  // namespace kernels
}  // namespace tessera
#endif
