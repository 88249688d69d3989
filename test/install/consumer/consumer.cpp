// SPDX-License-Identifier: Apache-2.0
// The smallest program that uses the installed library: the ranks add up their numbers.
#include <cstdio>

#include "tessera/base/error.hpp"
#include "tessera/comm/runtime.hpp"

int main() {
  try {
    tessera::Runtime runtime;
    double sum = runtime.rank() + 1;
    runtime.world().all_reduce(&sum, 1, tessera::DType::fp64, tessera::Reduction::sum).wait();
    const double expected = runtime.size() * (runtime.size() + 1) / 2.0;
    if (runtime.rank() == 0) std::printf("%d ranks, sum %g\n", runtime.size(), sum);
    return sum == expected ? 0 : 1;
  } catch (const tessera::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return error.is_bad_input() ? 2 : 1;
  }
}
