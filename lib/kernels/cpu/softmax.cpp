// SPDX-License-Identifier: Apache-2.0
// Softmax over the last dimension on the CPU.
#include "tessera/kernels/softmax.hpp"

#include "kernels/cpu/parallel.hpp"
#include "kernels/cuda/operations.hpp"
#include "kernels/dispatch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/softmax.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
#include "kernels/cpu/row_exp-inl.hpp"
#include "kernels/cpu/vector-inl.hpp"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {

void softmax_forward_cpu(const kernels::SoftmaxForward& args) {
  kernels::dispatch_float(args.dtype, "softmax", [&]<typename T>(T) {
    const std::int64_t columns = args.columns;
    kernels::parallel_rows(args.rows, columns, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t r = first; r < last; ++r) {
        const T* x = static_cast<const T*>(args.x) + r * columns;
        const float largest = row_max(x, columns);
        const float sum = sum_of_exp(x, columns, largest);
        scaled_exp(x, static_cast<T*>(args.y) + r * columns, columns, largest, 1 / sum);
      }
    });
  });
}

template <typename T>
void softmax_backward_row(const T* dy, const T* y, T* dx, std::int64_t columns) {
  const FloatTag tag;
  auto sum = hn::Zero(tag);
  for_each_vector(0, columns, [&](std::int64_t i, auto extent) {
    sum = hn::MulAdd(load(tag, dy + i, extent), load(tag, y + i, extent), sum);
  });
  const auto mean = hn::Set(tag, sum_of_lanes(tag, sum));
  for_each_vector(0, columns, [=](std::int64_t i, auto extent) {
    const auto difference = hn::Sub(load(tag, dy + i, extent), mean);
    store(tag, hn::Mul(load(tag, y + i, extent), difference), dx + i, extent);
  });
}

void softmax_backward_cpu(const kernels::SoftmaxBackward& args) {
  kernels::dispatch_float(args.dtype, "softmax", [&]<typename T>(T) {
    const std::int64_t columns = args.columns;
    kernels::parallel_rows(args.rows, columns, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t r = first; r < last; ++r)
        softmax_backward_row(static_cast<const T*>(args.dy) + r * columns,
                             static_cast<const T*>(args.y) + r * columns,
                             static_cast<T*>(args.dx) + r * columns, columns);
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(softmax_forward_cpu);
HWY_EXPORT(softmax_backward_cpu);

}  // namespace

namespace kernels {

void softmax_forward(const Stream& stream, const SoftmaxForward& args) {
  if (!stream.device().is_cpu()) return cuda::softmax_forward(stream, args);
  HWY_DYNAMIC_DISPATCH(softmax_forward_cpu)(args);
}

void softmax_backward(const Stream& stream, const SoftmaxBackward& args) {
  if (!stream.device().is_cpu()) return cuda::softmax_backward(stream, args);
  HWY_DYNAMIC_DISPATCH(softmax_backward_cpu)(args);
}

}  // namespace kernels
}  // namespace tessera
#endif
