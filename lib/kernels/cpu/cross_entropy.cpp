// SPDX-License-Identifier: Apache-2.0
// Softmax cross-entropy fused with its gradient on the CPU.
#include "tessera/kernels/cross_entropy.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cuda/operations.hpp"
#include "kernels/dispatch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/cross_entropy.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
#include "kernels/cpu/row_exp-inl.hpp"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {

template <typename T>
void cross_entropy_row(const kernels::CrossEntropy& args, std::int64_t row) {
  const std::int64_t target = args.targets[row], valid = args.valid_columns;
  const T* x = static_cast<const T*>(args.logits) + row * args.columns;
  T* dx = args.dlogits ? static_cast<T*>(args.dlogits) + row * args.columns : nullptr;
  if (target < 0) {
    args.losses[row] = 0;
    if (dx) std::fill_n(dx, args.columns, T{});
    return;
  }
  const float largest = row_max(x, valid);
  const float sum = sum_of_exp(x, valid, largest);
  const double log_sum = std::log(static_cast<double>(sum));
  const double distance = static_cast<double>(to_float(x[target])) - static_cast<double>(largest);
  args.losses[row] = static_cast<float>(log_sum - distance);
  if (!dx) return;
  scaled_exp(x, dx, valid, largest, args.scale / sum);
  // e^l - 1 keeps its digits when the target is nearly certain.
  dx[target] = round_to<T>(static_cast<float>(std::expm1(distance - log_sum)) * args.scale);
  std::fill(dx + valid, dx + args.columns, T{});
}

void cross_entropy_cpu(const kernels::CrossEntropy& args) {
  kernels::dispatch_float(args.dtype, "cross_entropy", [&]<typename T>(T) {
    kernels::parallel_rows(args.rows, args.columns, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t r = first; r < last; ++r) cross_entropy_row<T>(args, r);
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(cross_entropy_cpu);

}  // namespace

namespace kernels {

void cross_entropy(const Stream& stream, const CrossEntropy& args) {
  TESSERA_CHECK(
      args.valid_columns > 0 && args.valid_columns <= args.columns, Code::invalid_argument,
      fmt::format("cross_entropy: {} valid columns of {}", args.valid_columns, args.columns));
  if (!stream.device().is_cpu()) return cuda::cross_entropy(stream, args);
  for (std::int64_t r = 0; r < args.rows; ++r)
    TESSERA_CHECK(args.targets[r] < args.valid_columns, Code::invalid_argument,
                  fmt::format("cross_entropy: target {} of row {} is outside the vocabulary of {}",
                              args.targets[r], r, args.valid_columns));
  CrossEntropy now = args;
  if (args.variables != nullptr) now.scale = args.variables->gradient_scale;
  HWY_DYNAMIC_DISPATCH(cross_entropy_cpu)(now);
}

}  // namespace kernels
}  // namespace tessera
#endif
