// SPDX-License-Identifier: Apache-2.0
// Sequences of one length, and holding some back.
#include "tessera/data/sequences.hpp"

#include <cstdlib>

#include <gtest/gtest.h>

#include "support/expect_error.hpp"
#include "support/temporary_folder.hpp"

namespace tessera::data {
namespace {

using test::expect_error;
using test::TemporaryFolder;

class SequencesTest : public ::testing::Test {
 protected:
  /// A corpus of tokens 0, 1, 2 …
  std::shared_ptr<const Corpus> counting(std::int64_t tokens) {
    TokenFileWriter writer(folder_ / std::to_string(tokens), 257);
    std::vector<Token> ids(static_cast<std::size_t>(tokens));
    for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<Token>(i);
    writer.add_document(ids);
    writer.commit();
    CorpusOptions options;
    options.sources = {folder_ / std::to_string(tokens)};
    return std::make_shared<Corpus>(ByteTokenizer(), options);
  }
  TemporaryFolder folder_;
};

TEST_F(SequencesTest, NeighboursShareOneTokenAndTheTailIsDropped) {
  EXPECT_EQ(Sequences(counting(9), 4).size(), 2);
  EXPECT_EQ(Sequences(counting(12), 4).size(), 2);
  const Sequences sequences(counting(13), 4);
  EXPECT_EQ(sequences.size(), 3);
  std::vector<Token> inputs(4);
  std::vector<Token> targets(4);
  sequences.read(1, inputs.data(), targets.data());
  EXPECT_EQ(inputs, (std::vector<Token>{4, 5, 6, 7}));
  EXPECT_EQ(targets, (std::vector<Token>{5, 6, 7, 8}));
  sequences.read(2, inputs.data(), targets.data());
  EXPECT_EQ(targets.back(), 12);
  expect_error(Code::invalid_argument, {"sequence 3 of 3"},
               [&] { sequences.read(3, inputs.data(), targets.data()); });
  const Sequences single(counting(2), 1);
  single.read(0, inputs.data(), targets.data());
  EXPECT_EQ(targets[0], 1);
}

TEST_F(SequencesTest, AFractionHoldsBackTheLast) {
  const Sequences all(counting(101), 10);
  const auto [training, validation] = all.split(0.25);
  EXPECT_EQ(training.size(), 7);
  EXPECT_EQ(validation.size(), 3);
  std::vector<Token> inputs(10);
  std::vector<Token> targets(10);
  validation.read(0, inputs.data(), targets.data());
  EXPECT_EQ(inputs[0], 70);
  EXPECT_EQ(all.split(0).first.size(), 10);
  EXPECT_EQ(all.split(0).second.size(), 0);
  EXPECT_EQ(all.split(1e-6).second.size(), 1);
}

TEST_F(SequencesTest, TooLittleDataIsExplainedWithNumbers) {
  expect_error(Code::invalid_config, {"data.train", "4 tokens", "5"},
               [&] { Sequences short_of_one(counting(4), 4, "data.train"); });
  const Sequences one(counting(5), 4, "data.train");
  expect_error(Code::invalid_config, {"0.5", "1 of the 1", "data.train"}, [&] { one.split(0.5); });
  expect_error(Code::invalid_config, {"1"}, [&] { one.split(1); });
  expect_error(Code::invalid_config, {"-0.1"}, [&] { one.split(-0.1); });
  expect_error(Code::invalid_config, {"sequence_length"}, [&] { Sequences none(counting(5), 0); });
}

}  // namespace
}  // namespace tessera::data
