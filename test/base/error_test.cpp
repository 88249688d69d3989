// SPDX-License-Identifier: Apache-2.0
// The exception type: code, message, context.
#include "tessera/base/error.hpp"

#include <set>

#include <gtest/gtest.h>

namespace tessera {
namespace {

TEST(Error, CarriesCodeAndMessage) {
  try {
    fail(Code::io, "cannot read 'x'");
    FAIL() << "nothing was thrown";
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "cannot read 'x'");
    EXPECT_EQ(dynamic_cast<const Error&>(error).code(), Code::io);
  }
}

TEST(Error, ContextGoesInFrontAndKeepsTheCode) {
  const Error error(Code::io, "unexpected end of file");
  const Error outer = error.in_context("model.safetensors");
  EXPECT_STREQ(outer.what(), "model.safetensors: unexpected end of file");
  EXPECT_EQ(outer.code(), Code::io);
}

TEST(Error, BadInputIsWhatTheUserCanMend) {
  EXPECT_TRUE(Error(Code::invalid_config, "").is_bad_input());
  EXPECT_TRUE(Error(Code::invalid_argument, "").is_bad_input());
  EXPECT_TRUE(Error(Code::not_supported, "").is_bad_input());
  EXPECT_FALSE(Error(Code::timeout, "").is_bad_input());
  EXPECT_FALSE(Error(Code::internal, "").is_bad_input());
}

TEST(Error, EveryCodeHasItsOwnName) {
  std::set<std::string> names;
  for (int i = 0; i <= static_cast<int>(Code::internal); ++i)
    names.insert(to_string(static_cast<Code>(i)));
  EXPECT_EQ(names.size(), static_cast<std::size_t>(Code::internal) + 1);
  EXPECT_EQ(names.count("unknown error"), 0u);
}

TEST(Check, EvaluatesTheMessageOnlyOnFailure) {
  int evaluated = 0;
  const auto message = [&] {
    ++evaluated;
    return std::string("two is not three");
  };
  TESSERA_CHECK(2 == 2, Code::internal, message());
  EXPECT_EQ(evaluated, 0);
  EXPECT_THROW(TESSERA_CHECK(2 == 3, Code::internal, message()), Error);
  EXPECT_EQ(evaluated, 1);
}

}  // namespace
}  // namespace tessera
