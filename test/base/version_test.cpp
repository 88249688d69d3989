// SPDX-License-Identifier: Apache-2.0
// The version's form: three numbers, as packages and checkpoints write it.
#include "tessera/base/version.hpp"

#include <regex>

#include <gtest/gtest.h>

namespace tessera {
namespace {

TEST(Version, IsThreeNumbers) {
  EXPECT_TRUE(std::regex_match(version(), std::regex(R"(\d+\.\d+\.\d+)"))) << version();
}

}  // namespace
}  // namespace tessera
