// SPDX-License-Identifier: Apache-2.0
// A corpus on one rank: order, caches, and input that is wrong.
#include "tessera/data/corpus.hpp"

#include <cstdlib>
#include <filesystem>
#include <unistd.h>

#include <gtest/gtest.h>

#include "support/expect_error.hpp"
#include "support/temporary_folder.hpp"

namespace tessera::data {
namespace {

using test::expect_error;
using test::TemporaryFolder;

class CorpusTest : public ::testing::Test {
 protected:
  void SetUp() override { ::setenv("TESSERA_CACHE", (folder_ / "cache").c_str(), 1); }
  void TearDown() override { ::unsetenv("TESSERA_CACHE"); }

  CorpusOptions options(std::vector<std::string> sources) {
    CorpusOptions options;
    for (std::string& source : sources) options.sources.push_back(folder_ / source);
    options.name = "data.train";
    return options;
  }
  Corpus open(std::vector<std::string> sources) {
    return Corpus(tokenizer_, options(std::move(sources)));
  }
  std::vector<Token> tokens(const Corpus& corpus) {
    std::vector<Token> all(static_cast<std::size_t>(corpus.tokens()));
    corpus.read(0, corpus.tokens(), all.data());
    return all;
  }
  /// Text with '|' for end-of-text.
  std::string text(const Corpus& corpus) {
    std::string all;
    for (const Token token : tokens(corpus)) all += token == 256 ? '|' : static_cast<char>(token);
    return all;
  }
  std::size_t cached() {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder_ / "cache"))
      count += entry.path().extension() == ".idx" ? 1u : 0u;
    return count;
  }
  void refuse(std::vector<std::string> sources, Code code,
              std::initializer_list<std::string_view> parts) {
    expect_error(code, parts, [&] { open(std::move(sources)); });
  }

  TemporaryFolder folder_;
  ByteTokenizer tokenizer_;
};

TEST_F(CorpusTest, DocumentsInTheOrderGivenWithGlobsSorted) {
  folder_.file("b.txt", "bb");
  folder_.file("a.txt", "a");
  folder_.file("z/first.txt", "\xff\xfe");
  folder_.file("lines.jsonl", "{\"text\": \"one\\n\"}\n\n  \n{\"x\": 1, \"text\": \"\\u00e9\"}");
  const Corpus corpus = open({"z/first.txt", "*.txt", "lines.jsonl"});
  EXPECT_EQ(text(corpus), "\xff\xfe|a|bb|one\n|\xc3\xa9|");
  EXPECT_EQ(corpus.documents(), 5);
  EXPECT_EQ(corpus.document_begin(0), 0);
  EXPECT_EQ(corpus.document_begin(2), 5);
  EXPECT_EQ(corpus.document_begin(5), corpus.tokens());
}

TEST_F(CorpusTest, MixesTextAndIndexedPairs) {
  folder_.file("a.txt", "a");
  folder_.file("b.txt", "b");
  for (const char* name : {"p", "q"}) {
    TokenFileWriter writer(folder_ / name, 257);
    writer.add_document(std::vector<Token>{'x', name[0]});
    writer.add_document(std::vector<Token>{'y'});
    writer.commit();
  }
  EXPECT_EQ(text(open({"a.txt", "p", "b.txt", "q.idx"})), "a|xpyb|xqy");
  EXPECT_EQ(text(open({"?.bin"})), "xpyxqy");
  const Corpus corpus = open({"?.*"});
  EXPECT_EQ(text(corpus), "a|b|xpyxqy");
  EXPECT_EQ(corpus.documents(), 6);
  EXPECT_EQ(corpus.document_begin(3), 6);
  EXPECT_EQ(corpus.document_begin(5), 9);
  std::vector<Token> part(4);
  corpus.read(3, 4, part.data());
  EXPECT_EQ(part, (std::vector<Token>{256, 'x', 'p', 'y'}));
}

TEST_F(CorpusTest, TokenizesOnceAndAgainWhenAFileChanges) {
  const std::string path = folder_.file("a.txt", "first");
  EXPECT_EQ(text(open({"*.txt"})), "first|");
  EXPECT_EQ(cached(), 1u);
  EXPECT_EQ(text(open({"*.txt"})), "first|");
  EXPECT_EQ(cached(), 1u);

  // Same size, other time.
  const auto time = std::filesystem::last_write_time(path);
  folder_.file("a.txt", "again");
  std::filesystem::last_write_time(path, time + std::chrono::seconds(1));
  EXPECT_EQ(text(open({"*.txt"})), "again|");
  EXPECT_EQ(cached(), 2u);

  folder_.file("b.txt", "!");
  EXPECT_EQ(text(open({"*.txt"})), "again|!|");
  EXPECT_EQ(cached(), 3u);
}

TEST_F(CorpusTest, BuildsADamagedCacheAgain) {
  folder_.file("a.txt", "text");
  open({"a.txt"});
  for (const auto& entry : std::filesystem::directory_iterator(folder_ / "cache"))
    if (entry.path().extension() == ".bin") std::filesystem::resize_file(entry.path(), 3);
  EXPECT_EQ(text(open({"a.txt"})), "text|");
}

TEST_F(CorpusTest, FallsBackToAnotherCacheFolder) {
  ::setenv("TESSERA_CACHE", "/proc/nothing/here", 1);
  const std::string xdg = folder_ / "xdg";
  ::setenv("XDG_CACHE_HOME", xdg.c_str(), 1);
  folder_.file("a.txt", "text");
  EXPECT_EQ(text(open({"a.txt"})), "text|");
  EXPECT_TRUE(std::filesystem::exists(xdg + "/tessera"));
  ::unsetenv("XDG_CACHE_HOME");
}

TEST_F(CorpusTest, AnotherFieldOfJsonLines) {
  folder_.file("a.jsonl", R"({"body":"B","text":"T"})");
  CorpusOptions other = options({"a.jsonl"});
  other.field = "body";
  EXPECT_EQ(text(Corpus(tokenizer_, other)), "B|");
  EXPECT_EQ(text(open({"a.jsonl"})), "T|");
}

TEST_F(CorpusTest, ManyDocumentsKeepTheirOrderOverThreads) {
  std::string lines;
  std::string expected;
  for (int i = 0; i < 5000; ++i) {
    lines += "{\"text\":\"" + std::to_string(i) + "\"}\n";
    expected += std::to_string(i) + "|";
  }
  folder_.file("a.jsonl", lines);
  EXPECT_EQ(text(open({"a.jsonl"})), expected);
}

TEST_F(CorpusTest, SaysWhatIsWrong) {
  refuse({}, Code::invalid_config, {"data.train", "no files"});
  refuse({"missing.txt"}, Code::invalid_config, {"data.train", "missing.txt", "does not exist"});
  refuse({"*.txt"}, Code::invalid_config, {"data.train", "no file matches", "*.txt"});
  refuse({""}, Code::invalid_config, {"is a folder", "**"});
  folder_.file("empty.txt", "");
  refuse({"empty.txt"}, Code::invalid_config, {"data.train", "no text"});
  folder_.file("empty.jsonl", "\n\n");
  refuse({"empty.jsonl"}, Code::invalid_config, {"data.train", "no text"});
  folder_.file("bad.jsonl", "{\"text\":\"a\"}\n{\"text\":");
  refuse({"bad.jsonl"}, Code::io, {"bad.jsonl:2", "JSON"});
  folder_.file("no_text.jsonl", "{\"text\":\"a\"}\n\n{\"content\":\"b\"}");
  refuse({"no_text.jsonl"}, Code::io, {"no_text.jsonl:3", "'text'", "data.field"});
  folder_.file("number.jsonl", "{\"text\":1}");
  refuse({"number.jsonl"}, Code::io, {"number.jsonl:1"});
  folder_.file("half.idx", "x");
  refuse({"half.idx"}, Code::io, {"half.bin"});
  folder_.file("pair.idx", "x");
  folder_.file("pair.bin", "x");
  refuse({"pair"}, Code::io, {"pair.idx", "MMIDIDX"});
  if (::geteuid() != 0) {
    const std::string path = folder_.file("secret.txt", "x");
    std::filesystem::permissions(path, std::filesystem::perms::none);
    refuse({"secret.txt"}, Code::io, {"secret.txt", "denied"});
  }
  // Nothing half-built stays behind.
  for (const auto& entry : std::filesystem::directory_iterator(folder_ / "cache"))
    ADD_FAILURE() << entry.path();
}

TEST_F(CorpusTest, TokensOfAnotherVocabularyAreNoticed) {
  CorpusOptions foreign;
  foreign.sources = {TESSERA_TEST_DATA "/indexed/mmap-uint16"};
  const Corpus corpus(tokenizer_, foreign);
  Token first = 0;
  expect_error(Code::io, {"token 672", "257"}, [&] { corpus.read(0, 1, &first); });
}

}  // namespace
}  // namespace tessera::data
