// SPDX-License-Identifier: Apache-2.0
// Barriers of a block, and shuffles, votes and barriers of a warp.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <string>
#include <type_traits>

namespace tessera::emulation {

using Site = std::source_location;
/// "norm.cuh:215"
std::string to_string(const Site& site);

enum class BarrierKind : std::uint8_t { sync, any, all, count };

/// Blocks the thread until all threads of the block that have not ended are here.
int block_barrier(BarrierKind kind, int predicate, const Site& site);

/// What a warp does together: `lanes` are those that take part; contributions[l] is what lane l
/// handed to warp_together.
using WarpAction = void (*)(void* const* contributions, std::uint32_t lanes);

/// Blocks the lane until all lanes of `mask` that have not ended are here with the same action; the
/// last one runs it for all. The contributions live on the lanes' stacks, which do not move.
/// Memory is ordered as by __syncwarp.
void warp_together(std::uint32_t mask, WarpAction action, void* contribution, const Site& site);

enum class ShuffleKind : std::uint8_t { index, up, down, exclusive_or };
/// Lane numbers as CUDA defines them for segments of `width` lanes. Orders no memory.
std::uint64_t shuffle(std::uint32_t mask, ShuffleKind kind, std::uint64_t bits, int operand,
                      int width, const Site& site);
std::uint32_t ballot(std::uint32_t mask, bool predicate, const Site& site);
std::uint32_t match(std::uint32_t mask, std::uint64_t bits, const Site& site);
void sync_warp(std::uint32_t mask, const Site& site);
/// Lanes that run together, of which only the own one is certain.
std::uint32_t active_lanes();

template <typename T>
T shuffle_value(unsigned mask, ShuffleKind kind, T value, int operand, int width,
                const Site& site) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(std::uint64_t));
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = shuffle(mask, kind, bits, operand, width, site);
  std::memcpy(static_cast<void*>(&value), &bits, sizeof(T));
  return value;
}

}  // namespace tessera::emulation

// The call's own place is a default argument, so that a fault can name the line of the kernel.
#define TESSERA_EMULATION_SITE \
  const ::tessera::emulation::Site& site = ::tessera::emulation::Site::current()

// Inlined, so that a call is told from others by where it returns to.
#define TESSERA_EMULATION_INLINE [[gnu::always_inline]] inline

TESSERA_EMULATION_INLINE void __syncthreads(TESSERA_EMULATION_SITE) {
  tessera::emulation::block_barrier(tessera::emulation::BarrierKind::sync, 0, site);
}
TESSERA_EMULATION_INLINE int __syncthreads_or(int predicate, TESSERA_EMULATION_SITE) {
  return tessera::emulation::block_barrier(tessera::emulation::BarrierKind::any, predicate, site);
}
TESSERA_EMULATION_INLINE int __syncthreads_and(int predicate, TESSERA_EMULATION_SITE) {
  return tessera::emulation::block_barrier(tessera::emulation::BarrierKind::all, predicate, site);
}
TESSERA_EMULATION_INLINE int __syncthreads_count(int predicate, TESSERA_EMULATION_SITE) {
  return tessera::emulation::block_barrier(tessera::emulation::BarrierKind::count, predicate, site);
}

TESSERA_EMULATION_INLINE void __syncwarp(unsigned mask = 0xffffffffu, TESSERA_EMULATION_SITE) {
  tessera::emulation::sync_warp(mask, site);
}
inline unsigned __activemask() {
  return tessera::emulation::active_lanes();
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, TESSERA_EMULATION_SITE) {
  return tessera::emulation::shuffle_value(mask, tessera::emulation::ShuffleKind::index, value,
                                           lane, width, site);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, TESSERA_EMULATION_SITE) {
  return tessera::emulation::shuffle_value(mask, tessera::emulation::ShuffleKind::up, value,
                                           static_cast<int>(delta), width, site);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, TESSERA_EMULATION_SITE) {
  return tessera::emulation::shuffle_value(mask, tessera::emulation::ShuffleKind::down, value,
                                           static_cast<int>(delta), width, site);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, TESSERA_EMULATION_SITE) {
  return tessera::emulation::shuffle_value(mask, tessera::emulation::ShuffleKind::exclusive_or,
                                           value, bits, width, site);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, TESSERA_EMULATION_SITE) {
  return tessera::emulation::ballot(mask, predicate != 0, site);
}
inline int __any_sync(unsigned mask, int predicate, TESSERA_EMULATION_SITE) {
  return tessera::emulation::ballot(mask, predicate != 0, site) != 0;
}
inline int __all_sync(unsigned mask, int predicate, TESSERA_EMULATION_SITE) {
  return tessera::emulation::ballot(mask, predicate == 0, site) == 0;
}
template <typename T>
unsigned __match_any_sync(unsigned mask, T value, TESSERA_EMULATION_SITE) {
  static_assert(sizeof(T) <= sizeof(std::uint64_t));
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return tessera::emulation::match(mask, bits, site);
}

namespace tessera::emulation {

template <typename T>
struct Reduction {
  T value;
  template <auto Fold>
  static void act(void* const* contributions, std::uint32_t lanes) {
    const auto at = [&](std::uint32_t l) -> T& {
      return static_cast<Reduction*>(contributions[l])->value;
    };
    T result = at(static_cast<std::uint32_t>(std::countr_zero(lanes)));
    for (std::uint32_t rest = lanes & (lanes - 1); rest != 0; rest &= rest - 1) {
      result = Fold(result, at(static_cast<std::uint32_t>(std::countr_zero(rest))));
    }
    for (std::uint32_t rest = lanes; rest != 0; rest &= rest - 1) {
      at(static_cast<std::uint32_t>(std::countr_zero(rest))) = result;
    }
  }
};

template <auto Fold, typename T>
T reduce_warp(unsigned mask, T value, const Site& site) {
  static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned>);
  Reduction<T> mine{value};
  warp_together(mask, &Reduction<T>::template act<Fold>, &mine, site);
  return mine.value;
}

}  // namespace tessera::emulation

template <typename T>
T __reduce_add_sync(unsigned mask, T value, TESSERA_EMULATION_SITE) {
  return tessera::emulation::reduce_warp<[](T a, T b) { return a + b; }>(mask, value, site);
}
template <typename T>
T __reduce_min_sync(unsigned mask, T value, TESSERA_EMULATION_SITE) {
  return tessera::emulation::reduce_warp<[](T a, T b) { return b < a ? b : a; }>(mask, value, site);
}
template <typename T>
T __reduce_max_sync(unsigned mask, T value, TESSERA_EMULATION_SITE) {
  return tessera::emulation::reduce_warp<[](T a, T b) { return a < b ? b : a; }>(mask, value, site);
}
