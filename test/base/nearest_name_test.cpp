// SPDX-License-Identifier: Apache-2.0
// Which known name a misspelt one is taken for.
#include "tessera/base/nearest_name.hpp"

#include <gtest/gtest.h>

namespace tessera {
namespace {

const std::vector<std::string> kKnown = {"n_layer", "n_embd", "n_head", "n_positions",
                                         "vocab_size"};

TEST(NearestName, FindsSlips) {
  EXPECT_EQ(nearest_name("n_layers", kKnown), "n_layer");
  EXPECT_EQ(nearest_name("n_haed", kKnown), "n_head");
  EXPECT_EQ(nearest_name("Vocab_Size", kKnown), "vocab_size");
  EXPECT_EQ(nearest_name("n_postions", kKnown), "n_positions");
}

TEST(NearestName, GivesUpOnOtherWords) {
  EXPECT_EQ(nearest_name("learning_rate", kKnown), "");
  EXPECT_EQ(nearest_name("", kKnown), "");
  EXPECT_EQ(nearest_name(std::string(100000, 'n'), kKnown), "");
  EXPECT_EQ(nearest_name("n_layer", {}), "");
}

TEST(NearestName, MakesTheEndOfASentence) {
  EXPECT_EQ(did_you_mean("n_embed", kKnown), "; did you mean 'n_embd'?");
  EXPECT_EQ(did_you_mean("optimizer", kKnown), "");
}

}  // namespace
}  // namespace tessera
