// SPDX-License-Identifier: Apache-2.0
// Layer normalisation on the CPU. A row is read two or three times, the first from memory and then
// from cache.
#include "tessera/kernels/layer_norm.hpp"

#include <cmath>

#include "kernels/cpu/parallel.hpp"
#include "kernels/cuda/operations.hpp"
#include "kernels/dispatch.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/layer_norm.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
#include "kernels/cpu/row_sums-inl.hpp"
#include "kernels/cpu/vector-inl.hpp"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {

using kernels::LayerNormBackward;
using kernels::LayerNormForward;

template <typename T>
float row_mean(const T* x, std::int64_t columns) {
  const FloatTag tag;
  const float sum =
      sum_of_terms(columns, [=](std::int64_t i, auto extent) { return load(tag, x + i, extent); });
  return sum / static_cast<float>(columns);
}

/// Squares of the differences to the mean, not mean of the squares: no cancellation.
template <typename T>
float row_variance(const T* x, std::int64_t columns, float mean) {
  const FloatTag tag;
  const auto center = hn::Set(tag, mean);
  const float sum = sum_of_terms(columns, [=](std::int64_t i, auto extent) {
    const auto d = inside_or_zero(tag, hn::Sub(load(tag, x + i, extent), center), extent);
    return hn::Mul(d, d);
  });
  return sum / static_cast<float>(columns);
}

template <typename T>
const T* add_row(const LayerNormForward& args, const T* x, std::int64_t row) {
  const T* residual = static_cast<const T*>(args.residual) + row * args.columns;
  T* sum = static_cast<T*>(args.sum) + row * args.columns;
  const FloatTag tag;
  for_each_vector(0, args.columns, [=](std::int64_t i, auto extent) {
    store(tag, hn::Add(load(tag, residual + i, extent), load(tag, x + i, extent)), sum + i, extent);
  });
  return sum;
}

template <typename T>
void normalise_row(const LayerNormForward& args, std::int64_t row) {
  const FloatTag tag;
  const T* x = static_cast<const T*>(args.x) + row * args.columns;
  if (args.residual != nullptr) x = add_row(args, x, row);
  T* y = static_cast<T*>(args.y) + row * args.columns;
  const auto* weight = static_cast<const T*>(args.weight);
  const auto* bias = static_cast<const T*>(args.bias);
  const float mean = row_mean(x, args.columns);
  const float rstd = 1.0f / std::sqrt(row_variance(x, args.columns, mean) + args.epsilon);
  const auto center = hn::Set(tag, mean), factor = hn::Set(tag, rstd);
  for_each_vector(0, args.columns, [=](std::int64_t i, auto extent) {
    const auto unit = hn::Mul(hn::Sub(load(tag, x + i, extent), center), factor);
    const auto shift = bias != nullptr ? load(tag, bias + i, extent) : hn::Zero(tag);
    store(tag, hn::MulAdd(unit, load(tag, weight + i, extent), shift), y + i, extent);
  });
  if (args.mean != nullptr) args.mean[row] = mean;
  if (args.rstd != nullptr) args.rstd[row] = rstd;
}

void layer_norm_forward_cpu(const LayerNormForward& args) {
  kernels::dispatch_float(args.dtype, "layer_norm", [&]<typename T>(T) {
    kernels::parallel_rows(args.rows, args.columns, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t row = first; row < last; ++row) normalise_row<T>(args, row);
    });
  });
}

struct RowMeans {
  float gradient;      // of dy * weight
  float gradient_dot;  // of dy * weight * unit
};

/// Adds the row to dweight and dbias [columns] where they are wanted.
template <typename T>
RowMeans sum_row(const LayerNormBackward& args, std::int64_t row, float* dweight, float* dbias) {
  const FloatTag tag;
  const T* x = static_cast<const T*>(args.x) + row * args.columns;
  const T* dy = static_cast<const T*>(args.dy) + row * args.columns;
  const auto* weight = static_cast<const T*>(args.weight);
  const auto center = hn::Set(tag, args.mean[row]), factor = hn::Set(tag, args.rstd[row]);
  auto sum = hn::Zero(tag), dot = hn::Zero(tag);
  for_each_vector(0, args.columns, [&](std::int64_t i, auto extent) {
    const auto dyi = load(tag, dy + i, extent);
    const auto unit = hn::Mul(hn::Sub(load(tag, x + i, extent), center), factor);
    const auto g = hn::Mul(dyi, load(tag, weight + i, extent));  // zero outside, like dy
    sum = hn::Add(sum, g);
    dot = hn::MulAdd(g, unit, dot);
    if (dweight != nullptr)
      store(tag, hn::MulAdd(dyi, unit, load(tag, dweight + i, extent)), dweight + i, extent);
    if (dbias != nullptr) store(tag, hn::Add(dyi, load(tag, dbias + i, extent)), dbias + i, extent);
  });
  const auto n = static_cast<float>(args.columns);
  return {sum_of_lanes(tag, sum) / n, sum_of_lanes(tag, dot) / n};
}

template <typename T>
void input_gradient_row(const LayerNormBackward& args, std::int64_t row, RowMeans means) {
  const FloatTag tag;
  const T* x = static_cast<const T*>(args.x) + row * args.columns;
  const T* dy = static_cast<const T*>(args.dy) + row * args.columns;
  T* dx = static_cast<T*>(args.dx) + row * args.columns;
  const auto* weight = static_cast<const T*>(args.weight);
  const auto center = hn::Set(tag, args.mean[row]), factor = hn::Set(tag, args.rstd[row]);
  const auto mean = hn::Set(tag, means.gradient), dot = hn::Set(tag, means.gradient_dot);
  const bool add = args.accumulate_dx;
  for_each_vector(0, args.columns, [=](std::int64_t i, auto extent) {
    const auto unit = hn::Mul(hn::Sub(load(tag, x + i, extent), center), factor);
    const auto g = hn::Mul(load(tag, dy + i, extent), load(tag, weight + i, extent));
    const auto inner = hn::NegMulAdd(unit, dot, hn::Sub(g, mean));
    const auto before = add ? load(tag, dx + i, extent) : hn::Zero(tag);
    store(tag, hn::MulAdd(inner, factor, before), dx + i, extent);
  });
}

void layer_norm_backward_cpu(const LayerNormBackward& args) {
  RowSums sums(args.rows, args.columns, 2);
  const bool want_weight = args.dweight != nullptr, want_bias = args.dbias != nullptr;
  kernels::dispatch_float(args.dtype, "layer_norm", [&]<typename T>(T) {
    sums.fill([&](std::int64_t first, std::int64_t last, float* block) {
      float* dweight = want_weight ? block : nullptr;
      float* dbias = want_bias ? block + args.columns : nullptr;
      for (std::int64_t row = first; row < last; ++row)
        input_gradient_row<T>(args, row, sum_row<T>(args, row, dweight, dbias));
    });
  });
  if (want_weight) sums.fold(0, args.dweight, args.gradient_type, args.accumulate);
  if (want_bias) sums.fold(1, args.dbias, args.gradient_type, args.accumulate);
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(layer_norm_forward_cpu);
HWY_EXPORT(layer_norm_backward_cpu);

}  // namespace

namespace kernels {

void layer_norm_forward(const Stream& stream, const LayerNormForward& args) {
  if (!stream.device().is_cpu()) return cuda::layer_norm_forward(stream, args);
  HWY_DYNAMIC_DISPATCH(layer_norm_forward_cpu)(args);
}

void layer_norm_backward(const Stream& stream, const LayerNormBackward& args) {
  if (!stream.device().is_cpu()) return cuda::layer_norm_backward(stream, args);
  HWY_DYNAMIC_DISPATCH(layer_norm_backward_cpu)(args);
}

}  // namespace kernels
}  // namespace tessera
#endif
