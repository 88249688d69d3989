// SPDX-License-Identifier: Apache-2.0
// Files named .json are strict JSON.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/parse.hpp"
#include "config/support.hpp"

namespace tessera::config {
namespace {

using namespace testing;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

std::string json_refusal(const std::string& text) {
  return refusal([&] { parse(text, "c.json"); });
}

TEST(Json, SurrogatePairsAndEscapesAreRead) {
  const Node node = parse(R"({"a": "\ud83d\ude00 \u00e9 \/ \" \\ \n"})", "c.json");
  EXPECT_EQ(node.find("a")->text, "\U0001F600 \u00e9 / \" \\ \n");
}

TEST(Json, AnySpacingIsRead) {
  const Node node = parse("\n\t{ \"a\"\r\n:\t[1 ,\n 2]\n,\"b\":{}}\n\n", "c.json");
  EXPECT_EQ(to_json_text(node), R"({"a": [1, 2], "b": {}})");
}

TEST(Json, WhatIsOnlyYamlIsRefused) {
  for (const char* text : {"{a: 1}", "{\"a\": 1,}", "{'a': 1}", "{\"a\": 1} // c", "{\"a\": 01}",
                           "{\"a\": .5}", "{\"a\": +1}", "{\"a\": NaN}", "{\"a\": True}", "[1] [2]",
                           "", "{\"a\": \"\t\"}", "{\"a\": \"\\ud83d\"}", "{\"a\": \"\\x41\"}",
                           "a: 1", "{\"a\": \"\xff\"}", "{\"a\": 1e999}"})
    EXPECT_THAT(json_refusal(text), StartsWith("invalid configuration: c.json:")) << text;
}

TEST(Json, ErrorsNameTheLine) {
  EXPECT_THAT(json_refusal("{\n  \"a\": 1,\n  \"b\": oops\n}\n"),
              AllOf(HasSubstr("c.json:3: not valid JSON: "), Not(HasSubstr("json.exception"))));
}

TEST(Json, RepeatedKeysNameBothLines) {
  EXPECT_THAT(json_refusal("{\"a\": 1,\n\"b\": {\"c\": 1,\n\"c\": 2}}"),
              HasSubstr("c.json:3: key `c` is given twice; the first is in line 2"));
  EXPECT_EQ(json_refusal("{\"a\": {\"c\": 1}, \"b\": {\"c\": 2}}"), "");
}

TEST(Json, ValuesKnowTheirLines) {
  const Node node =
      parse("{\n\"a\": 1\n,\n\"b\": [2,\n3\n],\n\"c\":\ntrue,\n\"d\": {\n}}", "c.json");
  EXPECT_EQ(node.find("a")->source.line, 2);
  EXPECT_EQ(node.find("b")->source.line, 4);
  EXPECT_EQ(node.find("b")->items[0].source.line, 4);
  EXPECT_EQ(node.find("b")->items[1].source.line, 5);
  EXPECT_EQ(node.find("c")->source.line, 7);
  EXPECT_EQ(node.find("d")->source.line, 9);
}

TEST(Json, NumbersKeepTheirValue) {
  const Node node =
      parse("[9007199254740993, 1e3, 0.1, -2, 18446744073709551615, 1e300]", "c.json");
  EXPECT_EQ(node.items[0].integer, 9007199254740993);
  EXPECT_TRUE(node.items[1].whole);
  EXPECT_EQ(node.items[1].integer, 1000);
  EXPECT_FALSE(node.items[2].whole);
  EXPECT_EQ(node.items[3].integer, -2);
  EXPECT_FALSE(node.items[4].whole);
  EXPECT_FALSE(node.items[5].whole);
}

TEST(Json, DepthIsLimited) {
  EXPECT_THAT(json_refusal(std::string(100'000, '[')), HasSubstr("nested more than 64"));
}

TEST(Json, ARunFileMayBeJson) {
  const std::string text = R"({"model": "m", "data": {"train": ["a.txt"]},
    "run": {"steps": 5e1}, "engine": {"train_batch_size": 4}})";
  EXPECT_EQ(read(text, {}, "run.json").run.steps, 50);
  EXPECT_THAT(refusal_of("model: m\n", {}, "run.json"), HasSubstr("run.json:1: not valid JSON"));
}

TEST(Yaml, ScalarsAreReadAsTheyLook) {
  const Node node = parse(
      "[1, -2, +3, 6e-4, .5, 5., 1e3, true, False, null, ~, '1', \"true\", 0x10, 1_000, .inf, .nan,"
      " 1.2.3, -, abc, 9007199254740993]",
      "c.yaml");
  EXPECT_EQ(to_json_text(node),
            R"([1, -2, 3, 0.0006, 0.5, 5, 1000, true, false, null, null, "1", "true", "0x10", )"
            R"("1_000", ".inf", ".nan", "1.2.3", "-", "abc", 9007199254740993])");
}

}  // namespace
}  // namespace tessera::config
