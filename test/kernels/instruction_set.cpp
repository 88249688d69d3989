// SPDX-License-Identifier: Apache-2.0
// Linked into every kernel test: TESSERA_TEST_INSTRUCTION_SET=avx2 or baseline hides wider ones, so
// that one machine can test what others would run.
#include <cstdint>
#include <cstdlib>
#include <string>

#include <hwy/highway.h>

namespace {

std::int64_t hidden_targets() {
  const char* text = std::getenv("TESSERA_TEST_INSTRUCTION_SET");
  const std::string name = text == nullptr ? "" : text;
  const std::int64_t beyond_avx2 = HWY_AVX3 | HWY_AVX3_DL;
  if (name == "avx2") return beyond_avx2;
  if (name == "baseline") return beyond_avx2 | HWY_AVX2 | HWY_SSE4 | HWY_SSSE3;
  return 0;
}

// Before main, as the first kernel fixes the choice.
const bool hidden = [] {
  if (hidden_targets() != 0) hwy::DisableTargets(hidden_targets());
  return true;
}();

}  // namespace
