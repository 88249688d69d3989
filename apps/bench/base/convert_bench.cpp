// SPDX-License-Identifier: Apache-2.0
// Conversions between fp32 and 16-bit floats against a plain copy, one thread, out of the cache.
#include <cstring>
#include <vector>

#include "tessera/base/dtype.hpp"

#include "support/bench.hpp"

int main(int argc, char** argv) {
  using namespace tessera;
  bench::Program program("base_convert", argc, argv);
  const std::size_t count = 16u << 20;
  std::vector<float> wide(count, 1.5f), other(count);
  std::vector<bf16> narrow(count);
  const auto n = static_cast<double>(count);
  program.measure(
      {.name = "16 Mi elements",
       .variants =
           {{.name = "copy fp32",
             .run = [&] { std::memcpy(other.data(), wide.data(), count * sizeof(float)); },
             .work = 8 * n},
            {.name = "fp32 to bf16",
             .run = [&] { convert(wide.data(), DType::fp32, narrow.data(), DType::bf16, count); },
             .work = 6 * n},
            {.name = "bf16 to fp32",
             .run = [&] { convert(narrow.data(), DType::bf16, other.data(), DType::fp32, count); },
             .work = 6 * n}},
       .unit = "byte"},
      1);
  return program.finish();
}
