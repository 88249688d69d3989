// SPDX-License-Identifier: Apache-2.0
// A corpus opened by several ranks: built once, same content and same errors everywhere.
#include <cstdlib>
#include <filesystem>
#include <memory>

#include <gtest/gtest.h>

#include "tessera/comm/runtime.hpp"
#include "tessera/data/corpus.hpp"

#include "support/expect_error.hpp"
#include "support/temporary_folder.hpp"

namespace tessera::data {
namespace {

using test::expect_error;
using test::TemporaryFolder;

class CorpusMpi : public ::testing::Test {
 protected:
  void SetUp() override {
    if (runtime_.rank() == 0) folder_ = std::make_unique<TemporaryFolder>();
    path_ = runtime_.world().broadcast_text(folder_ ? folder_->path() : "", 0);
    ::setenv("TESSERA_CACHE", (path_ + "/cache").c_str(), 1);
  }
  void TearDown() override {
    ::unsetenv("TESSERA_CACHE");
    runtime_.world().barrier();
  }

  Runtime runtime_;
  std::unique_ptr<TemporaryFolder> folder_;
  std::string path_;
  ByteTokenizer tokenizer_;
};

TEST_F(CorpusMpi, EveryRankSeesTheSameTokens) {
  if (folder_) {
    folder_->file("b.txt", "bb");
    folder_->file("a.txt", "a");
  }
  runtime_.world().barrier();
  CorpusOptions options;
  options.sources = {path_ + "/*.txt"};
  for (int round = 0; round < 2; ++round) {
    const Corpus corpus(runtime_, tokenizer_, options);
    ASSERT_EQ(corpus.tokens(), 5);
    std::vector<Token> tokens(5);
    corpus.read(0, 5, tokens.data());
    EXPECT_EQ(tokens, (std::vector<Token>{'a', 256, 'b', 'b', 256}));
    std::size_t files = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(path_ + "/cache"))
      ++files;
    EXPECT_EQ(files, 2u);
  }
}

TEST_F(CorpusMpi, AnErrorOnRankZeroIsEverybodys) {
  CorpusOptions options;
  options.name = "data.validation";
  options.sources = {path_ + "/*.nothing"};
  expect_error(Code::invalid_config, {"data.validation", "*.nothing"},
               [&] { Corpus corpus(runtime_, tokenizer_, options); });
}

TEST_F(CorpusMpi, ACacheThatOtherRanksDoNotSeeIsAnError) {
  if (folder_) folder_->file("a.txt", "a");
  runtime_.world().barrier();
  if (runtime_.rank() == runtime_.size() - 1 && runtime_.size() > 1) {
    ::setenv("TESSERA_CACHE", (path_ + "/elsewhere").c_str(), 1);
    ::setenv("XDG_CACHE_HOME", (path_ + "/elsewhere").c_str(), 1);
    ::setenv("HOME", (path_ + "/elsewhere").c_str(), 1);
  }
  CorpusOptions options;
  options.sources = {path_ + "/a.txt"};
  options.fallback_cache_folder = path_ + "/elsewhere";
  if (runtime_.size() == 1)
    EXPECT_EQ(Corpus(runtime_, tokenizer_, options).tokens(), 2);
  else
    expect_error(Code::io, {"TESSERA_CACHE"},
                 [&] { Corpus corpus(runtime_, tokenizer_, options); });
}

}  // namespace
}  // namespace tessera::data
