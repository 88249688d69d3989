// SPDX-License-Identifier: Apache-2.0
// Matrix products against a plain fp64 loop.
#include "tessera/kernels/gemm.hpp"

#include <gtest/gtest.h>

#include "support/kernel_testing.hpp"

namespace tessera::kernels {
namespace {

TEST(FlopCount, AddsUp) {
  const auto before = flop_count();
  add_flops(42);
  EXPECT_EQ(flop_count() - before, 42);
}

}  // namespace
}  // namespace tessera::kernels
