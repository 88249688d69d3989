// SPDX-License-Identifier: Apache-2.0
// What ThreadSanitizer is told: who acts, and who has waited for whom. Without it all of this is
// nothing.
#pragma once

#ifdef TESSERA_EMULATION_TSAN
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

namespace tessera::emulation::race {

#ifdef TESSERA_EMULATION_TSAN

inline constexpr bool kWatched = true;

/// A thread of a kernel, in the eyes of the sanitizer.
using Actor = void*;
inline Actor create() {
  return __tsan_create_fiber(0);
}
inline void destroy(Actor actor) {
  __tsan_destroy_fiber(actor);
}
inline Actor current() {
  return __tsan_get_current_fiber();
}
/// Right before the switch of stacks. Orders nothing.
inline void become(Actor actor) {
  __tsan_switch_to_fiber(actor, __tsan_switch_to_fiber_no_sync);
}

/// What came before a release of a token comes before what follows an acquire of it.
inline void release(void* token) {
  if (token != nullptr) {
    __tsan_release(token);
  }
}
inline void acquire(void* token) {
  if (token != nullptr) {
    __tsan_acquire(token);
  }
}

/// While one lives, accesses of the running actor are the emulation's own business.
struct Unwatched {
  Unwatched() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  Unwatched(const Unwatched&) = delete;
  Unwatched& operator=(const Unwatched&) = delete;
  ~Unwatched() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
};

#else

inline constexpr bool kWatched = false;
using Actor = void*;
inline Actor create() {
  return nullptr;
}
inline void destroy(Actor) {}
inline Actor current() {
  return nullptr;
}
inline void become(Actor) {}
inline void release(void*) {}
inline void acquire(void*) {}
struct Unwatched {
  Unwatched() {}
};

#endif

}  // namespace tessera::emulation::race
