// SPDX-License-Identifier: Apache-2.0
// Where faults go.
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "emulation/emulation.hpp"

namespace tessera::emulation {

namespace {

FaultHandler& handler() {
  static FaultHandler the_handler;
  return the_handler;
}

}  // namespace

FaultHandler set_fault_handler(FaultHandler replacement) {
  return std::exchange(handler(), std::move(replacement));
}

void report_fault(FaultKind kind, const std::string& message) {
  if (handler()) {
    handler()(Fault{kind, message});
    return;
  }
  std::fprintf(stderr, "emulated CUDA: %s\n", message.c_str());
  std::abort();
}

}  // namespace tessera::emulation
