// SPDX-License-Identifier: Apache-2.0
#include "tessera/base/dtype.hpp"

#include <array>
#include <utility>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

namespace tessera {

std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::fp64:
    case DType::int64:
      return 8;
    case DType::fp32:
    case DType::int32:
      return 4;
    case DType::bf16:
    case DType::fp16:
      return 2;
    case DType::uint8:
      return 1;
  }
  fail(Code::internal, "unknown dtype");
}

const char* to_string(DType dtype) {
  switch (dtype) {
    case DType::fp32:
      return "fp32";
    case DType::bf16:
      return "bf16";
    case DType::fp16:
      return "fp16";
    case DType::fp64:
      return "fp64";
    case DType::int32:
      return "int32";
    case DType::int64:
      return "int64";
    case DType::uint8:
      return "uint8";
  }
  return "unknown";
}

bool is_floating(DType dtype) {
  return dtype == DType::fp32 || dtype == DType::bf16 || dtype == DType::fp16 ||
         dtype == DType::fp64;
}

DType parse_dtype(std::string_view name) {
  using Name = std::pair<std::string_view, DType>;
  static constexpr std::array names = {
      Name{"fp32", DType::fp32},    Name{"float32", DType::fp32}, Name{"float", DType::fp32},
      Name{"F32", DType::fp32},     Name{"bf16", DType::bf16},    Name{"bfloat16", DType::bf16},
      Name{"BF16", DType::bf16},    Name{"fp16", DType::fp16},    Name{"float16", DType::fp16},
      Name{"half", DType::fp16},    Name{"F16", DType::fp16},     Name{"fp64", DType::fp64},
      Name{"float64", DType::fp64}, Name{"double", DType::fp64},  Name{"F64", DType::fp64},
      Name{"int32", DType::int32},  Name{"I32", DType::int32},    Name{"int64", DType::int64},
      Name{"I64", DType::int64},    Name{"uint8", DType::uint8},  Name{"U8", DType::uint8}};
  for (const auto& [known, dtype] : names)
    if (known == name) return dtype;
  fail(Code::invalid_argument,
       fmt::format("unknown element type '{}'; known: fp32, bf16, fp16, fp64, int32, int64, uint8",
                   name));
}

fp16 fp16::from_float(float value) {
  const auto word = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((word >> 16) & 0x8000u);
  const std::uint32_t magnitude = word & 0x7fffffffu;
  if (magnitude > 0x7f800000u)
    return {static_cast<std::uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu))};
  if (magnitude >= 0x477ff000u) return {static_cast<std::uint16_t>(sign | 0x7c00u)};
  if (magnitude < 0x38800000u) {  // subnormal: adding 0.5 makes the FPU round at the right bit
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return {
        static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u))};
  }
  const std::uint32_t odd = (magnitude >> 13) & 1u;
  return {static_cast<std::uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13))};
}

float fp16::to_float() const {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
  const std::uint32_t magnitude = bits & 0x7fffu;
  if (magnitude > 0x7c00u)  // a NaN comes out quiet, as from the processor's own instruction
    return std::bit_cast<float>(sign | 0x7fc00000u | ((magnitude & 0x3ffu) << 13));
  if (magnitude == 0x7c00u) return std::bit_cast<float>(sign | 0x7f800000u);
  if (magnitude >= 0x0400u) return std::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000u));
  const float value = static_cast<float>(magnitude) * 0x1p-24f;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(value));
}

}  // namespace tessera
