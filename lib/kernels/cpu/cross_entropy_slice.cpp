// SPDX-License-Identifier: Apache-2.0
// Cross-entropy over a slice of the vocabulary on the CPU.
#include "tessera/kernels/cross_entropy_slice.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cuda/operations.hpp"
#include "kernels/dispatch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/cross_entropy_slice.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
#include "kernels/cpu/row_exp-inl.hpp"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {

using kernels::CrossEntropySlice;

template <typename T>
void begin_row(const CrossEntropySlice& args, std::int64_t row) {
  const T* x = static_cast<const T*>(args.logits) + row * args.columns;
  const std::int64_t target = args.targets[row], own = target - args.slice.first;
  const bool here = target >= 0 && own >= 0 && own < args.valid_columns;
  const float largest = target < 0 ? 0.0f : row_max(x, args.valid_columns);
  args.own_largest[row] = args.largest[row] = largest;
  args.sums[row] = target < 0 ? 0.0f : sum_of_exp(x, args.valid_columns, largest);
  args.sums[args.rows + row] = here ? to_float(x[own]) : 0.0f;
}

template <typename T>
void finish_row(const CrossEntropySlice& args, std::int64_t row) {
  const std::int64_t target = args.targets[row], valid = args.valid_columns;
  T* dx = args.dlogits ? static_cast<T*>(args.dlogits) + row * args.columns : nullptr;
  if (target < 0) {
    args.losses[row] = 0;
    if (dx) std::fill_n(dx, args.columns, T{});
    return;
  }
  const float largest = args.largest[row], sum = args.sums[row];
  const double log_sum = std::log(static_cast<double>(sum));
  const double distance =
      static_cast<double>(args.sums[args.rows + row]) - static_cast<double>(largest);
  args.losses[row] = static_cast<float>(log_sum - distance);
  if (!dx) return;
  const T* x = static_cast<const T*>(args.logits) + row * args.columns;
  scaled_exp(x, dx, valid, largest, args.scale / sum);
  const std::int64_t own = target - args.slice.first;
  if (own >= 0 && own < valid)
    dx[own] = round_to<T>(static_cast<float>(std::expm1(distance - log_sum)) * args.scale);
  std::fill(dx + valid, dx + args.columns, T{});
}

void begin_cpu(const CrossEntropySlice& args) {
  kernels::dispatch_float(args.dtype, "cross_entropy", [&]<typename T>(T) {
    kernels::parallel_rows(args.rows, args.columns, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t r = first; r < last; ++r) begin_row<T>(args, r);
    });
  });
}

void finish_cpu(const CrossEntropySlice& args) {
  kernels::dispatch_float(args.dtype, "cross_entropy", [&]<typename T>(T) {
    kernels::parallel_rows(args.rows, args.columns, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t r = first; r < last; ++r) finish_row<T>(args, r);
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(begin_cpu);
HWY_EXPORT(finish_cpu);

}  // namespace

namespace kernels {

void cross_entropy_slice_begin(const Stream& stream, const CrossEntropySlice& args) {
  TESSERA_CHECK(
      args.valid_columns > 0 && args.valid_columns <= args.columns, Code::invalid_argument,
      fmt::format("cross_entropy: {} valid columns of {}", args.valid_columns, args.columns));
  if (!stream.device().is_cpu()) return cuda::cross_entropy_slice_begin(stream, args);
  for (std::int64_t r = 0; r < args.rows; ++r)
    TESSERA_CHECK(args.targets[r] < args.slice.vocabulary, Code::invalid_argument,
                  fmt::format("cross_entropy: target {} of row {} is outside the vocabulary of {}",
                              args.targets[r], r, args.slice.vocabulary));
  HWY_DYNAMIC_DISPATCH(begin_cpu)(args);
}

void cross_entropy_slice_rescale(const Stream& stream, const CrossEntropySlice& args) {
  if (!stream.device().is_cpu()) return cuda::cross_entropy_slice_rescale(stream, args);
  for (std::int64_t r = 0; r < args.rows; ++r)
    args.sums[r] *= std::exp(args.own_largest[r] - args.largest[r]);
}

void cross_entropy_slice_finish(const Stream& stream, const CrossEntropySlice& args) {
  if (!stream.device().is_cpu()) return cuda::cross_entropy_slice_finish(stream, args);
  HWY_DYNAMIC_DISPATCH(finish_cpu)(args);
}

}  // namespace kernels
}  // namespace tessera
#endif
