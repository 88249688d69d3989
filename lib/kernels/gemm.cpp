// SPDX-License-Identifier: Apache-2.0
// Matrix products: the count of their FLOPs.
#include "tessera/kernels/gemm.hpp"

#include <atomic>

namespace tessera::kernels {
namespace {

std::atomic<std::int64_t>& counter() {
  static std::atomic<std::int64_t> flops{0};
  return flops;
}

}  // namespace

std::int64_t flop_count() {
  return counter().load(std::memory_order_relaxed);
}

void add_flops(std::int64_t flops) {
  counter().fetch_add(flops, std::memory_order_relaxed);
}

}  // namespace tessera::kernels
