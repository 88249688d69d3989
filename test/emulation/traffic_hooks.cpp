// SPDX-License-Identifier: Apache-2.0
// Kernels that are counted are compiled with -fsanitize=thread, for the calls that it puts before
// each access, and linked with these instead of the sanitizer. A call that is lacking does not
// link, and belongs here.
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "emulation/traffic.hpp"

using tessera::emulation::count_access;

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}

#define TESSERA_EMULATION_ACCESS(bytes)               \
  void __tsan_read##bytes(void* address) {            \
    count_access(address, bytes, false);              \
  }                                                   \
  void __tsan_write##bytes(void* address) {           \
    count_access(address, bytes, true);               \
  }                                                   \
  void __tsan_unaligned_read##bytes(void* address) {  \
    __tsan_read##bytes(address);                      \
  }                                                   \
  void __tsan_unaligned_write##bytes(void* address) { \
    __tsan_write##bytes(address);                     \
  }
TESSERA_EMULATION_ACCESS(1)
TESSERA_EMULATION_ACCESS(2)
TESSERA_EMULATION_ACCESS(4)
TESSERA_EMULATION_ACCESS(8)
TESSERA_EMULATION_ACCESS(16)
#undef TESSERA_EMULATION_ACCESS

void __tsan_read_range(void* address, std::size_t bytes) {
  count_access(address, bytes, false);
}
void __tsan_write_range(void* address, std::size_t bytes) {
  count_access(address, bytes, true);
}

// Atomics become calls that also have to do the work.
#define TESSERA_EMULATION_ATOMIC_LOAD(bits, type)                      \
  type __tsan_atomic##bits##_load(const volatile type* place, int) {   \
    count_access(const_cast<const type*>(place), sizeof(type), false); \
    return __atomic_load_n(place, __ATOMIC_SEQ_CST);                   \
  }
TESSERA_EMULATION_ATOMIC_LOAD(8, std::uint8_t)
TESSERA_EMULATION_ATOMIC_LOAD(32, std::uint32_t)
TESSERA_EMULATION_ATOMIC_LOAD(64, std::uint64_t)
#undef TESSERA_EMULATION_ATOMIC_LOAD

#define TESSERA_EMULATION_ATOMIC_EXCHANGE(bits, type)                                      \
  bool __tsan_atomic##bits##_compare_exchange_strong(volatile type* place, type* expected, \
                                                     type desired, int, int) {             \
    count_access(const_cast<const type*>(place), sizeof(type), true);                      \
    return __atomic_compare_exchange_n(place, expected, desired, false, __ATOMIC_SEQ_CST,  \
                                       __ATOMIC_SEQ_CST);                                  \
  }
TESSERA_EMULATION_ATOMIC_EXCHANGE(32, std::uint32_t)
TESSERA_EMULATION_ATOMIC_EXCHANGE(64, std::uint64_t)
#undef TESSERA_EMULATION_ATOMIC_EXCHANGE

void __tsan_atomic_signal_fence(int) {
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

}  // extern "C"
