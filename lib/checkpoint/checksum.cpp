// SPDX-License-Identifier: Apache-2.0
// The checksum of include/tessera/checkpoint/checksum.hpp in vectors of 64-bit lanes.
#include "tessera/checkpoint/checksum.hpp"

#include <cstddef>
#include <cstring>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "checkpoint/checksum.cpp"
#include <hwy/foreach_target.h>
// clang-format off
#include <hwy/highway.h>
// clang-format on

#ifndef TESSERA_CHECKSUM_CONSTANTS
#define TESSERA_CHECKSUM_CONSTANTS
namespace tessera::checkpoint {
inline constexpr std::uint64_t kStep = 0x9E3779B97F4A7C15u;
inline constexpr std::uint64_t kFirst = 0xBF58476D1CE4E5B9u;
inline constexpr std::uint64_t kSecond = 0x94D049BB133111EBu;
}  // namespace tessera::checkpoint
#endif

HWY_BEFORE_NAMESPACE();
namespace tessera::checkpoint {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

inline uint64_t finish(uint64_t z) {
  z = (z ^ (z >> 30)) * kFirst;
  z = (z ^ (z >> 27)) * kSecond;
  return z ^ (z >> 31);
}

#if HWY_TARGET != HWY_SCALAR

using Tag = hn::ScalableTag<uint64_t>;
using Vector = hn::Vec<Tag>;

/// a * factor modulo 2^64; AVX2 has only products of 32-bit halves.
HWY_INLINE Vector multiply(Tag tag, Vector a, uint64_t factor) {
  const hn::Repartition<uint32_t, Tag> halves;
  const auto low = hn::BitCast(halves, hn::Set(tag, factor & 0xffffffffu));
  const auto high = hn::BitCast(halves, hn::Set(tag, factor >> 32));
  const auto a_low = hn::BitCast(halves, a);
  const auto a_high = hn::BitCast(halves, hn::ShiftRight<32>(a));
  const auto cross = hn::Add(hn::MulEven(a_low, high), hn::MulEven(a_high, low));
  return hn::Add(hn::MulEven(a_low, low), hn::ShiftLeft<32>(cross));
}

HWY_INLINE Vector finish(Tag tag, Vector z) {
  z = multiply(tag, hn::Xor(z, hn::ShiftRight<30>(z)), kFirst);
  z = multiply(tag, hn::Xor(z, hn::ShiftRight<27>(z)), kSecond);
  return hn::Xor(z, hn::ShiftRight<31>(z));
}

template <typename T>
HWY_INLINE Vector load_wide(Tag tag, const T* data) {
  if constexpr (sizeof(T) == 8)
    return hn::LoadU(tag, data);
  else
    return hn::PromoteTo(tag, hn::LoadU(hn::Rebind<T, Tag>(), data));
}

/// Sums whole vectors and sets `done` to how many elements they hold. `key` is N + begin * kStep.
template <typename T>
uint64_t sum_vectors(uint64_t key, const T* values, size_t count, size_t& done) {
  const Tag tag;
  const size_t lanes = hn::Lanes(tag);
  Vector keys = hn::Add(hn::Set(tag, key), multiply(tag, hn::Iota(tag, 0), kStep));
  const Vector step = hn::Set(tag, kStep * lanes);
  Vector sums = hn::Zero(tag);
  for (; done + lanes <= count; done += lanes) {
    sums = hn::Add(sums, finish(tag, hn::Xor(keys, load_wide(tag, values + done))));
    keys = hn::Add(keys, step);
  }
  HWY_ALIGN uint64_t parts[hn::MaxLanes(tag)];
  hn::Store(sums, tag, parts);
  uint64_t total = 0;
  for (size_t lane = 0; lane < lanes; ++lane) total += parts[lane];
  return total;
}

#endif

template <typename T>
uint64_t sum(uint64_t key, const void* data, size_t count) {
  const T* values = static_cast<const T*>(data);
  size_t i = 0;
  uint64_t total = 0;
#if HWY_TARGET != HWY_SCALAR
  total = sum_vectors(key, values, count, i);
#endif
  for (; i < count; ++i) total += finish((key + i * kStep) ^ values[i]);
  return total;
}

uint64_t sum_32(uint64_t key, const void* data, size_t count) {
  return sum<uint32_t>(key, data, count);
}
uint64_t sum_64(uint64_t key, const void* data, size_t count) {
  return sum<uint64_t>(key, data, count);
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera::checkpoint
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace tessera::checkpoint {
namespace {

HWY_EXPORT(sum_32);
HWY_EXPORT(sum_64);

std::uint64_t name_hash(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

/// Narrow elements are rare enough to be widened in a block.
template <typename T>
std::uint64_t sum_narrow(std::uint64_t key, const void* data, std::size_t count) {
  const auto* values = static_cast<const T*>(data);
  std::uint32_t block[1024];
  std::uint64_t total = 0;
  for (std::size_t begin = 0; begin < count; begin += 1024) {
    const std::size_t n = count - begin < 1024 ? count - begin : 1024;
    for (std::size_t i = 0; i < n; ++i) block[i] = values[begin + i];
    total += HWY_DYNAMIC_DISPATCH(sum_32)(key + begin * kStep, block, n);
  }
  return total;
}

}  // namespace

std::uint64_t checksum_range(std::string_view name, std::int64_t begin, const void* data,
                             DType dtype, std::int64_t count) {
  const std::uint64_t key = name_hash(name) + static_cast<std::uint64_t>(begin) * kStep;
  const auto n = static_cast<std::size_t>(count);
  switch (size_of(dtype)) {
    case 1:
      return sum_narrow<std::uint8_t>(key, data, n);
    case 2:
      return sum_narrow<std::uint16_t>(key, data, n);
    case 4:
      return HWY_DYNAMIC_DISPATCH(sum_32)(key, data, n);
    default:
      return HWY_DYNAMIC_DISPATCH(sum_64)(key, data, n);
  }
}

std::string_view checksum_name(std::string_view path) {
  constexpr std::string_view parameters = "parameters/";
  return path.starts_with(parameters) ? path.substr(parameters.size()) : path;
}

std::string format_checksum(std::uint64_t checksum) {
  return fmt::format("{:016x}", checksum);
}

}  // namespace tessera::checkpoint
#endif
