// SPDX-License-Identifier: Apache-2.0
// One Runtime for all tests of a program: making one costs more than most tests.
#pragma once

#include "tessera/comm/runtime.hpp"

namespace tessera::zero::testing {

inline Communicator& world() {
  static Runtime runtime;
  return runtime.world();
}

}  // namespace tessera::zero::testing
