// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "base/signals_blocked.hpp"

namespace tessera::kernels::cpu {

/// While one lives, no handler of a signal runs on the threads that work for this one.
///
/// oneDNN before 3.11.2 keeps a pointer to the heap in the stack pointer inside of its fp32
/// kernels on x86 (its issue 4845), so that the frame of a handler is written over the heap.
/// Signals to this thread wait until the product is there; the workers of OpenMP, which may be
/// older than the shelter, leave theirs to other threads for good.
class SignalShelter {
 public:
  SignalShelter();

 private:
  std::optional<SignalsBlocked> blocked_;
};

}  // namespace tessera::kernels::cpu
