// SPDX-License-Identifier: Apache-2.0
// Root-mean-square normalisation on the CPU.
#include "tessera/kernels/rms_norm.hpp"

#include <cmath>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cuda/operations.hpp"
#include "kernels/dispatch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rms_norm.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
#include "kernels/cpu/row_sums-inl.hpp"
#include "kernels/cpu/vector-inl.hpp"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {

using kernels::RmsNormBackward;
using kernels::RmsNormForward;

template <typename T>
void rms_normalise_row(const RmsNormForward& args, std::int64_t row) {
  const FloatTag tag;
  const T* x = static_cast<const T*>(args.x) + row * args.columns;
  T* y = static_cast<T*>(args.y) + row * args.columns;
  const auto* weight = static_cast<const T*>(args.weight);
  const float squares = sum_of_terms(args.columns, [=](std::int64_t i, auto extent) {
    const auto value = load(tag, x + i, extent);
    return hn::Mul(value, value);
  });
  const float mean = squares / static_cast<float>(args.columns);
  const float rstd = 1.0f / std::sqrt(mean + args.epsilon);
  const auto factor = hn::Set(tag, rstd);
  for_each_vector(0, args.columns, [=](std::int64_t i, auto extent) {
    const auto unit = hn::Mul(load(tag, x + i, extent), factor);
    store(tag, hn::Mul(unit, load(tag, weight + i, extent)), y + i, extent);
  });
  if (args.rstd != nullptr) args.rstd[row] = rstd;
}

void rms_norm_forward_cpu(const RmsNormForward& args) {
  kernels::dispatch_float(args.dtype, "rms_norm", [&]<typename T>(T) {
    kernels::parallel_rows(args.rows, args.columns, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t row = first; row < last; ++row) rms_normalise_row<T>(args, row);
    });
  });
}

/// Mean of dy * weight * unit; adds the row to dweight [columns] where that is wanted.
template <typename T>
float sum_rms_row(const RmsNormBackward& args, std::int64_t row, float* dweight) {
  const FloatTag tag;
  const T* x = static_cast<const T*>(args.x) + row * args.columns;
  const T* dy = static_cast<const T*>(args.dy) + row * args.columns;
  const auto* weight = static_cast<const T*>(args.weight);
  const auto factor = hn::Set(tag, args.rstd[row]);
  auto dot = hn::Zero(tag);
  for_each_vector(0, args.columns, [&](std::int64_t i, auto extent) {
    const auto term = hn::Mul(load(tag, dy + i, extent), hn::Mul(load(tag, x + i, extent), factor));
    dot = hn::MulAdd(term, load(tag, weight + i, extent), dot);
    if (dweight != nullptr)
      store(tag, hn::Add(term, load(tag, dweight + i, extent)), dweight + i, extent);
  });
  return sum_of_lanes(tag, dot) / static_cast<float>(args.columns);
}

template <typename T>
void rms_input_gradient_row(const RmsNormBackward& args, std::int64_t row, float mean_dot) {
  const FloatTag tag;
  const T* x = static_cast<const T*>(args.x) + row * args.columns;
  const T* dy = static_cast<const T*>(args.dy) + row * args.columns;
  T* dx = static_cast<T*>(args.dx) + row * args.columns;
  const auto* weight = static_cast<const T*>(args.weight);
  const auto factor = hn::Set(tag, args.rstd[row]), dot = hn::Set(tag, mean_dot);
  const bool add = args.accumulate_dx;
  for_each_vector(0, args.columns, [=](std::int64_t i, auto extent) {
    const auto unit = hn::Mul(load(tag, x + i, extent), factor);
    const auto g = hn::Mul(load(tag, dy + i, extent), load(tag, weight + i, extent));
    const auto before = add ? load(tag, dx + i, extent) : hn::Zero(tag);
    store(tag, hn::MulAdd(hn::NegMulAdd(unit, dot, g), factor, before), dx + i, extent);
  });
}

void rms_norm_backward_cpu(const RmsNormBackward& args) {
  RowSums sums(args.rows, args.columns, 1);
  const bool want_weight = args.dweight != nullptr;
  kernels::dispatch_float(args.dtype, "rms_norm", [&]<typename T>(T) {
    sums.fill([&](std::int64_t first, std::int64_t last, float* block) {
      float* dweight = want_weight ? block : nullptr;
      for (std::int64_t row = first; row < last; ++row)
        rms_input_gradient_row<T>(args, row, sum_rms_row<T>(args, row, dweight));
    });
  });
  if (want_weight) sums.fold(0, args.dweight, args.gradient_type, args.accumulate);
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(rms_norm_forward_cpu);
HWY_EXPORT(rms_norm_backward_cpu);

}  // namespace

namespace kernels {

void rms_norm_forward(const Stream& stream, const RmsNormForward& args) {
  if (!stream.device().is_cpu()) return cuda::rms_norm_forward(stream, args);
  HWY_DYNAMIC_DISPATCH(rms_norm_forward_cpu)(args);
}

void rms_norm_backward(const Stream& stream, const RmsNormBackward& args) {
  if (!stream.device().is_cpu()) return cuda::rms_norm_backward(stream, args);
  HWY_DYNAMIC_DISPATCH(rms_norm_backward_cpu)(args);
}

}  // namespace kernels
}  // namespace tessera
#endif
