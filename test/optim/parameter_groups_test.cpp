// SPDX-License-Identifier: Apache-2.0
// Which parameters decay.
#include "tessera/optim/parameter_groups.hpp"

#include <gtest/gtest.h>

namespace tessera::optim {
namespace {

TEST(ParameterGroups, OneDimensionDoesNotDecay) {
  const ParameterGroupOptions options{.weight_decay = 0.1};
  EXPECT_EQ(weight_decay_of(options, "h.0.attn.c_attn.weight", 2), 0.1);
  EXPECT_EQ(weight_decay_of(options, "h.0.ln_1.weight", 1), 0);
  EXPECT_EQ(weight_decay_of(options, "scale", 0), 0);
}

TEST(ParameterGroups, OptionsDecideOtherwise) {
  const ParameterGroupOptions options{
      .weight_decay = 0.1, .decay_all = true, .no_decay_patterns = {"*.bias", "wpe.*"}};
  EXPECT_EQ(weight_decay_of(options, "h.0.ln_1.weight", 1), 0.1);
  EXPECT_EQ(weight_decay_of(options, "h.0.ln_1.bias", 1), 0);
  EXPECT_EQ(weight_decay_of(options, "wpe.weight", 2), 0);
  EXPECT_EQ(weight_decay_of(options, "wte.weight", 2), 0.1);
}

TEST(ParameterGroups, Globs) {
  EXPECT_TRUE(matches_glob("", ""));
  EXPECT_TRUE(matches_glob("*", ""));
  EXPECT_TRUE(matches_glob("**", "anything.at.all"));
  EXPECT_TRUE(matches_glob("h.?.ln_*.weight", "h.3.ln_1.weight"));
  EXPECT_TRUE(matches_glob("*ab*abc", "xabxabcabc"));
  EXPECT_TRUE(matches_glob("a*b", "ab"));
  EXPECT_FALSE(matches_glob("", "a"));
  EXPECT_FALSE(matches_glob("a", "ab"));
  EXPECT_FALSE(matches_glob("?", ""));
  EXPECT_FALSE(matches_glob("*.bias", "bias.weight"));
  EXPECT_FALSE(matches_glob("h.?.weight", "h.12.weight"));
  EXPECT_FALSE(matches_glob("a*b*c", "acb"));
}

}  // namespace
}  // namespace tessera::optim
