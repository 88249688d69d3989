// SPDX-License-Identifier: Apache-2.0
// The byte tokenizer.
#include "tessera/data/tokenizer.hpp"

#include <gtest/gtest.h>

#include "support/expect_error.hpp"
#include "support/temporary_folder.hpp"

namespace tessera::data {
namespace {

using test::expect_error;

TEST(ByteTokenizer, GivesBackAnyBytes) {
  const ByteTokenizer tokenizer;
  std::string text;
  for (int i = 0; i < 256; ++i) text += static_cast<char>(i);
  const std::vector<Token> tokens = tokenizer.encode(text);
  ASSERT_EQ(tokens.size(), 256u);
  for (int i = 0; i < 256; ++i) EXPECT_EQ(tokens[static_cast<std::size_t>(i)], i);
  EXPECT_EQ(tokenizer.decode(tokens), text);
  EXPECT_TRUE(tokenizer.encode("").empty());
}

TEST(ByteTokenizer, EndOfTextIsNoText) {
  const ByteTokenizer tokenizer;
  EXPECT_EQ(tokenizer.vocabulary_size(), 257);
  EXPECT_EQ(tokenizer.end_of_text(), 256);
  EXPECT_EQ(tokenizer.decode(std::vector<Token>{72, 256, 105}), "Hi");
  expect_error(Code::invalid_argument, {"token 257", "vocabulary of 257"},
               [&] { tokenizer.decode(std::vector<Token>{257}); });
  expect_error(Code::invalid_argument, {"token -1"},
               [&] { tokenizer.decode(std::vector<Token>{-1}); });
}

TEST(MakeTokenizer, KnowsBytesAndSaysWhatItDoesNot) {
  EXPECT_EQ(make_tokenizer("bytes")->name(), "bytes");
  const test::TemporaryFolder folder;
  const std::string path = folder.file("tokenizer.json", "{}");
  expect_error(Code::not_supported, {path, "not available yet"}, [&] { make_tokenizer(path); });
  expect_error(Code::invalid_config, {"byte", "bytes"}, [&] { make_tokenizer("byte"); });
}

}  // namespace
}  // namespace tessera::data
