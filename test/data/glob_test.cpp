// SPDX-License-Identifier: Apache-2.0
// File name patterns.
#include "tessera/data/glob.hpp"

#include <filesystem>

#include <gtest/gtest.h>

#include "support/temporary_folder.hpp"

namespace tessera::data {
namespace {

using test::TemporaryFolder;

TEST(Glob, MatchesNames) {
  EXPECT_TRUE(matches("*.h", "a.h"));
  EXPECT_FALSE(matches("*.h", "a.hpp"));
  EXPECT_TRUE(matches("a*b*c", "axxbyybzc"));
  EXPECT_FALSE(matches("a*b*c", "axxbyyb"));
  EXPECT_TRUE(matches("?x", "ax"));
  EXPECT_FALSE(matches("?x", "x"));
  EXPECT_TRUE(matches("[a-c]1", "b1"));
  EXPECT_FALSE(matches("[!a-c]1", "b1"));
  EXPECT_TRUE(matches("[!a-c]1", "d1"));
  EXPECT_TRUE(matches("[]x]", "]"));
  EXPECT_TRUE(matches("[", "["));
  EXPECT_TRUE(matches("*", "anything"));
  EXPECT_FALSE(matches("*", ".hidden"));
  EXPECT_TRUE(matches(".*", ".hidden"));
  EXPECT_TRUE(matches("", ""));
  EXPECT_FALSE(matches("", "a"));
  EXPECT_FALSE(matches(std::string(50, '*') + "b", std::string(10000, 'a')));
}

class GlobTree : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"b.h", "a.h", "a.c", "x/c.h", "x/y/d.h", "x/.hidden/e.h", ".f.h"})
      folder_.file(name, "1");
    std::filesystem::create_directory_symlink("..", folder_ / "x/loop");
    std::filesystem::create_symlink("a.h", folder_ / "link.h");
    std::filesystem::create_symlink("nowhere", folder_ / "broken.h");
  }
  std::vector<std::string> expand(const std::string& pattern) {
    std::vector<std::string> found = expand_glob(folder_ / pattern);
    for (std::string& path : found) path = path.substr(folder_.path().size() + 1);
    return found;
  }
  TemporaryFolder folder_;
};

using Names = std::vector<std::string>;

TEST_F(GlobTree, SortsAndFollowsLinksToFiles) {
  EXPECT_EQ(expand("*.h"), (Names{"a.h", "b.h", "link.h"}));
  EXPECT_EQ(expand("nothing*"), Names{});
  EXPECT_EQ(expand("missing/*.h"), Names{});
  EXPECT_EQ(expand("a.h"), Names{"a.h"});
  EXPECT_EQ(expand("*"), (Names{"a.c", "a.h", "b.h", "link.h"}));
}

TEST_F(GlobTree, AnyDepthDoesNotFollowLoops) {
  EXPECT_EQ(expand("**/*.h"), (Names{"a.h", "b.h", "link.h", "x/c.h", "x/y/d.h"}));
  EXPECT_EQ(expand("x/**/*.h"), (Names{"x/c.h", "x/y/d.h"}));
  EXPECT_EQ(expand("**/y/*.h"), Names{"x/y/d.h"});
  EXPECT_EQ(expand("**/**/d.h"), Names{"x/y/d.h"});
  EXPECT_EQ(expand("x/**"), (Names{"x/c.h", "x/y/d.h"}));
  EXPECT_EQ(expand("*/c.h"), Names{"x/c.h"});
  EXPECT_EQ(expand("x/.hidden/*.h"), Names{"x/.hidden/e.h"});
  EXPECT_EQ(expand("x/loop/x/c.h"), Names{"x/loop/x/c.h"});
}

TEST_F(GlobTree, RelativePatternsStayRelative) {
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(folder_.path());
  const Names names = expand_glob("*.h");
  const Names deep = expand_glob("**/d.h");
  std::filesystem::current_path(before);
  EXPECT_EQ(names, (Names{"a.h", "b.h", "link.h"}));
  EXPECT_EQ(deep, Names{"x/y/d.h"});
}

}  // namespace
}  // namespace tessera::data
