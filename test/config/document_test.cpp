// SPDX-License-Identifier: Apache-2.0
// doc/configuration.md is what the table says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tessera/base/file.hpp"
#include "tessera/config/report.hpp"

#include "config/table.hpp"

namespace tessera::config {
namespace {

TEST(Document, IsUpToDate) {
  // A plain comparison: a diff of two hundred lines would hide what to do.
  const bool same = read_text(TESSERA_DOC "/configuration.md") == configuration_markdown();
  EXPECT_TRUE(same) << "update it with: tessera config --markdown > doc/configuration.md";
}

TEST(Document, HasEveryKeyWithStatus) {
  const std::string text = configuration_markdown();
  EXPECT_THAT(text, ::testing::HasSubstr("| `stage` | an integer in [0, 3] | `0` | supported |"));
  EXPECT_THAT(text, ::testing::HasSubstr("## engine.zero_optimization"));
  EXPECT_THAT(text, ::testing::HasSubstr("### WarmupDecayLR"));
  for (const Row& row : table())
    EXPECT_NE(text.find(row.path.substr(row.path.rfind('.') + 1) + "` |"), std::string::npos)
        << row.path;
}

}  // namespace
}  // namespace tessera::config
