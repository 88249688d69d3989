// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include <fmt/format.h>

#include "tessera/base/dtype.hpp"
#include "tessera/base/error.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "base/convert.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
#include "base/simd-inl.hpp"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace tessera {
namespace HWY_NAMESPACE {

template <typename Source, typename Target>
void convert_all(const Source* source, Target* target, size_t count) {
  const FloatTag tag;
  const size_t lanes = hn::Lanes(tag);
  size_t i = 0;
  for (; i + lanes <= count; i += lanes) store_float(tag, load_float(tag, source + i), target + i);
  for (; i < count; ++i) target[i] = round_to<Target>(to_float(source[i]));
}

void float_to_bf16(const float* s, bf16* t, size_t n) {
  convert_all(s, t, n);
}
void bf16_to_float(const bf16* s, float* t, size_t n) {
  convert_all(s, t, n);
}
void float_to_fp16(const float* s, fp16* t, size_t n) {
  convert_all(s, t, n);
}
void fp16_to_float(const fp16* s, float* t, size_t n) {
  convert_all(s, t, n);
}
void bf16_to_fp16(const bf16* s, fp16* t, size_t n) {
  convert_all(s, t, n);
}
void fp16_to_bf16(const fp16* s, bf16* t, size_t n) {
  convert_all(s, t, n);
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera {
namespace {

HWY_EXPORT(float_to_bf16);
HWY_EXPORT(bf16_to_float);
HWY_EXPORT(float_to_fp16);
HWY_EXPORT(fp16_to_float);
HWY_EXPORT(bf16_to_fp16);
HWY_EXPORT(fp16_to_bf16);

double load_double(const void* source, DType type, std::size_t i) {
  switch (type) {
    case DType::fp64:
      return static_cast<const double*>(source)[i];
    case DType::fp32:
      return static_cast<double>(static_cast<const float*>(source)[i]);
    case DType::bf16:
      return static_cast<double>(static_cast<const bf16*>(source)[i].to_float());
    default:
      return static_cast<double>(static_cast<const fp16*>(source)[i].to_float());
  }
}

// Only for pairs with fp64; a double goes to 16 bits through fp32.
void store_double(double value, void* target, DType type, std::size_t i) {
  const auto single = static_cast<float>(value);
  switch (type) {
    case DType::fp64:
      static_cast<double*>(target)[i] = value;
      break;
    case DType::fp32:
      static_cast<float*>(target)[i] = single;
      break;
    case DType::bf16:
      static_cast<bf16*>(target)[i] = bf16::from_float(single);
      break;
    default:
      static_cast<fp16*>(target)[i] = fp16::from_float(single);
      break;
  }
}

}  // namespace

void convert(const void* source, DType source_type, void* target, DType target_type,
             std::size_t count) {
  if (source_type == target_type) {
    if (source != target) std::memmove(target, source, count * size_of(source_type));
    return;
  }
  TESSERA_CHECK(
      is_floating(source_type) && is_floating(target_type), Code::invalid_argument,
      fmt::format("cannot convert {} to {}", to_string(source_type), to_string(target_type)));
  const auto is = [&](DType from, DType to) { return source_type == from && target_type == to; };
  const auto run = [&](auto function, auto* from, auto* to) {
    function(static_cast<decltype(from)>(source), static_cast<decltype(to)>(target), count);
  };
  const float* f = nullptr;
  const bf16* b = nullptr;
  const fp16* h = nullptr;
  float* tf = nullptr;
  bf16* tb = nullptr;
  fp16* th = nullptr;
  if (is(DType::fp32, DType::bf16)) return run(HWY_DYNAMIC_DISPATCH(float_to_bf16), f, tb);
  if (is(DType::bf16, DType::fp32)) return run(HWY_DYNAMIC_DISPATCH(bf16_to_float), b, tf);
  if (is(DType::fp32, DType::fp16)) return run(HWY_DYNAMIC_DISPATCH(float_to_fp16), f, th);
  if (is(DType::fp16, DType::fp32)) return run(HWY_DYNAMIC_DISPATCH(fp16_to_float), h, tf);
  if (is(DType::bf16, DType::fp16)) return run(HWY_DYNAMIC_DISPATCH(bf16_to_fp16), b, th);
  if (is(DType::fp16, DType::bf16)) return run(HWY_DYNAMIC_DISPATCH(fp16_to_bf16), h, tb);
  for (std::size_t i = 0; i < count; ++i)
    store_double(load_double(source, source_type, i), target, target_type, i);
}

}  // namespace tessera
#endif
