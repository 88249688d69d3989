// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/signal_shelter.hpp"

#include <tuple>

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>

#include "tessera/base/cpu_features.hpp"

namespace tessera::kernels::cpu {
namespace {

bool needed() {
#if defined(__x86_64__)
  const dnnl_version_t& version = *dnnl_version();
  return std::tuple(version.major, version.minor, version.patch) < std::tuple(3, 11, 2);
#else
  return false;
#endif
}

void block_on_worker() {
  thread_local bool blocked = false;
  if (blocked || omp_get_thread_num() == 0) return;
  const sigset_t outside = outside_signals();
  pthread_sigmask(SIG_BLOCK, &outside, nullptr);
  blocked = true;
}

}  // namespace

SignalShelter::SignalShelter() {
  static const bool is_needed = needed();
  if (!is_needed) return;
  blocked_.emplace();
  // Asked anew each time: others may have let workers go, and had new ones made, in between.
  if (threads() > 1) {
#pragma omp parallel
    block_on_worker();
  }
}

}  // namespace tessera::kernels::cpu
