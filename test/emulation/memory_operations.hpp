// SPDX-License-Identifier: Apache-2.0
// Loads and stores with cache hints, atomics and fences.
#pragma once

#include <atomic>
#include <cstdint>
#include <type_traits>

// Hints change nothing that a program can see.
#define TESSERA_EMULATION_LOAD(name)             \
  template <typename T>                          \
  inline T name(const T* __restrict__ address) { \
    return *address;                             \
  }
TESSERA_EMULATION_LOAD(__ldg)
TESSERA_EMULATION_LOAD(__ldca)
TESSERA_EMULATION_LOAD(__ldcg)
TESSERA_EMULATION_LOAD(__ldcs)
TESSERA_EMULATION_LOAD(__ldcv)
TESSERA_EMULATION_LOAD(__ldlu)
#undef TESSERA_EMULATION_LOAD

#define TESSERA_EMULATION_STORE(name)                           \
  template <typename T>                                         \
  inline void name(T* address, std::type_identity_t<T> value) { \
    *address = value;                                           \
  }
TESSERA_EMULATION_STORE(__stcg)
TESSERA_EMULATION_STORE(__stcs)
TESSERA_EMULATION_STORE(__stwb)
TESSERA_EMULATION_STORE(__stwt)
#undef TESSERA_EMULATION_STORE

// One OS thread runs all: order needs no instruction, only a compiler that keeps it.
inline void __threadfence() {
  std::atomic_signal_fence(std::memory_order_seq_cst);
}
inline void __threadfence_block() {
  std::atomic_signal_fence(std::memory_order_seq_cst);
}
inline void __threadfence_system() {
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

// Atomics are stronger here than on the device (they also order other memory), because
// ThreadSanitizer knows no fences.
namespace tessera::emulation {

template <typename T, typename Update>
T update_atomically(T* address, Update update) {
  std::atomic_ref<T> target(*address);
  T old = target.load();
  while (!target.compare_exchange_strong(old, static_cast<T>(update(old)))) {
  }
  return old;
}

}  // namespace tessera::emulation

#define TESSERA_EMULATION_ATOMIC(name, expression)                                            \
  template <typename T>                                                                       \
  inline T name(T* address, std::type_identity_t<T> value) {                                  \
    return tessera::emulation::update_atomically(address, [&](T old) { return expression; }); \
  }
TESSERA_EMULATION_ATOMIC(atomicAdd, old + value)
TESSERA_EMULATION_ATOMIC(atomicSub, old - value)
TESSERA_EMULATION_ATOMIC(atomicExch, (static_cast<void>(old), value))
TESSERA_EMULATION_ATOMIC(atomicMin, value < old ? value : old)
TESSERA_EMULATION_ATOMIC(atomicMax, old < value ? value : old)
TESSERA_EMULATION_ATOMIC(atomicAnd, old& value)
TESSERA_EMULATION_ATOMIC(atomicOr, old | value)
TESSERA_EMULATION_ATOMIC(atomicXor, old ^ value)
#undef TESSERA_EMULATION_ATOMIC

inline unsigned atomicInc(unsigned* address, unsigned limit) {
  return tessera::emulation::update_atomically(
      address, [=](unsigned old) { return old >= limit ? 0u : old + 1; });
}
inline unsigned atomicDec(unsigned* address, unsigned limit) {
  return tessera::emulation::update_atomically(
      address, [=](unsigned old) { return old == 0 || old > limit ? limit : old - 1; });
}
template <typename T>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  std::atomic_ref<T> target(*address);
  target.compare_exchange_strong(expected, value);
  return expected;
}
