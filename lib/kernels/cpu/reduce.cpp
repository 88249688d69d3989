// SPDX-License-Identifier: Apache-2.0
// Sums of squares and non-finite detection on the CPU.
#include "tessera/kernels/reduce.hpp"

#include <atomic>
#include <limits>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cuda/operations.hpp"
#include "kernels/dispatch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/reduce.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
#include "kernels/cpu/vector-inl.hpp"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {

/// The eight lanes of the definition, in as many vectors as this instruction set needs.
inline constexpr size_t kLanes = 8;
using DoubleTag = hn::CappedTag<double, kLanes>;
inline constexpr size_t kWidth = hn::MaxLanes(DoubleTag());
inline constexpr size_t kVectors = kLanes / kWidth;

template <typename T>
HWY_INLINE hn::Vec<DoubleTag> load_double(const T* p) {
  const hn::Rebind<float, DoubleTag> narrow;
  return hn::PromoteTo(DoubleTag(), load_float(narrow, p));
}

/// Squares of fp32 numbers are exact in fp64, so MulAdd rounds as a multiplication and an addition
/// would: once, in the addition.
template <typename T>
double block_square_sum(const T* x, std::int64_t count) {
  const DoubleTag tag;
  hn::Vec<DoubleTag> sums[kVectors];
  for (auto& sum : sums) sum = hn::Zero(tag);
  const auto add = [&](const T* p) {
    for (size_t k = 0; k < kVectors; ++k) {
      const auto value = load_double(p + k * kWidth);
      sums[k] = hn::MulAdd(value, value, sums[k]);
    }
  };
  std::int64_t i = 0;
  for (; i + static_cast<std::int64_t>(kLanes) <= count; i += kLanes) add(x + i);
  if (i < count) {
    T padded[kLanes] = {};
    std::memcpy(padded, x + i, static_cast<size_t>(count - i) * sizeof(T));
    add(padded);
  }
  HWY_ALIGN double lanes[kLanes];
  for (size_t k = 0; k < kVectors; ++k) hn::Store(sums[k], tag, lanes + k * kWidth);
  double total = lanes[0];
  for (size_t lane = 1; lane < kLanes; ++lane) total += lanes[lane];
  return total;
}

void block_square_sums_cpu(const void* x, DType dtype, std::int64_t count, double* sums) {
  kernels::dispatch_float(dtype, "block_square_sums", [&]<typename T>(T) {
    const auto* p = static_cast<const T*>(x);
    static_assert(kernels::kChunk % kernels::kNormBlock == 0);
    kernels::parallel_chunks(count, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; i += kernels::kNormBlock)
        sums[i / kernels::kNormBlock] =
            block_square_sum(p + i, std::min(kernels::kNormBlock, end - i));
    });
  });
}

/// First index in [begin, end) whose exponent bits are all set, or -1.
template <typename T>
std::int64_t find_non_finite(const T* x, std::int64_t begin, std::int64_t end) {
  const FloatTag tag;
  const auto limit = hn::Set(tag, std::numeric_limits<float>::max());
  std::int64_t found = -1;
  for_each_vector(begin, end, [&](std::int64_t i, auto extent) {
    if (found >= 0) return;
    const auto finite = hn::Le(hn::Abs(load(tag, x + i, extent)), limit);
    const auto first = hn::FindFirstTrue(tag, hn::Not(finite));
    if (first >= 0) found = i + first;
  });
  return found;
}

std::int64_t first_non_finite_cpu(const void* x, DType dtype, std::int64_t count) {
  constexpr auto kNone = std::numeric_limits<std::int64_t>::max();
  std::atomic<std::int64_t> first{kNone};
  kernels::dispatch_float(dtype, "first_non_finite", [&]<typename T>(T) {
    kernels::parallel_chunks(count, [&](std::int64_t begin, std::int64_t end) {
      if (first.load(std::memory_order_relaxed) < begin) return;
      const std::int64_t found = find_non_finite(static_cast<const T*>(x), begin, end);
      std::int64_t smallest = first;
      while (found >= 0 && found < smallest && !first.compare_exchange_weak(smallest, found)) {
      }
    });
  });
  return first == kNone ? -1 : first.load();
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(block_square_sums_cpu);
HWY_EXPORT(first_non_finite_cpu);

}  // namespace

namespace kernels {

void block_square_sums(const Stream& stream, const void* x, DType dtype, std::int64_t count,
                       double* sums) {
  if (!stream.device().is_cpu()) return cuda::block_square_sums(stream, x, dtype, count, sums);
  HWY_DYNAMIC_DISPATCH(block_square_sums_cpu)(x, dtype, count, sums);
}

std::int64_t first_non_finite(const Stream& stream, const void* x, DType dtype,
                              std::int64_t count) {
  if (!stream.device().is_cpu()) return cuda::first_non_finite(stream, x, dtype, count);
  return HWY_DYNAMIC_DISPATCH(first_non_finite_cpu)(x, dtype, count);
}

}  // namespace kernels
}  // namespace tessera
#endif
