// SPDX-License-Identifier: Apache-2.0
// Element types, the two 16-bit float types, and conversions between them.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tessera {

enum class DType : std::uint8_t { fp32, bf16, fp16, fp64, int32, int64, uint8 };

std::size_t size_of(DType dtype);
const char* to_string(DType dtype);
bool is_floating(DType dtype);
/// Accepts our names and the field's others ("float32", "bfloat16", "half", "float", "F32", "BF16"
/// …); throws invalid_argument.
DType parse_dtype(std::string_view name);

/// 1 sign, 8 exponent, 7 mantissa bits. Conversion from fp32 rounds to nearest even and keeps NaN a
/// NaN.
struct bf16 {
  std::uint16_t bits = 0;

  static bf16 from_float(float value) {
    const auto word = std::bit_cast<std::uint32_t>(value);
    if ((word & 0x7fffffffu) > 0x7f800000u)
      return {static_cast<std::uint16_t>((word >> 16) | 0x40u)};
    return {static_cast<std::uint16_t>((word + 0x7fffu + ((word >> 16) & 1u)) >> 16)};
  }
  float to_float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }
};

/// IEEE 754 binary16. Conversion from fp32 rounds to nearest even, overflows to infinity and keeps
/// NaN a NaN.
struct fp16 {
  std::uint16_t bits = 0;

  static fp16 from_float(float value);
  float to_float() const;
};

/// Converts `count` elements; every pair of floating types is supported, others only to themselves.
/// May not overlap unless the types are equal. Vectorised for fp32 ↔ bf16 and fp32 ↔ fp16.
void convert(const void* source, DType source_type, void* target, DType target_type,
             std::size_t count);

/// The DType of a C++ type: dtype_of<float> == DType::fp32.
template <typename T>
inline constexpr DType dtype_of = [] {
  static_assert(sizeof(T) == 0, "no DType for this type");
  return DType::fp32;
}();
template <>
inline constexpr DType dtype_of<float> = DType::fp32;
template <>
inline constexpr DType dtype_of<bf16> = DType::bf16;
template <>
inline constexpr DType dtype_of<fp16> = DType::fp16;
template <>
inline constexpr DType dtype_of<double> = DType::fp64;
template <>
inline constexpr DType dtype_of<std::int32_t> = DType::int32;
template <>
inline constexpr DType dtype_of<std::int64_t> = DType::int64;
template <>
inline constexpr DType dtype_of<std::uint8_t> = DType::uint8;

}  // namespace tessera
