// SPDX-License-Identifier: Apache-2.0
// Indexed token files: pairs by other software, the exact bytes that we write, damaged pairs.
#include "tessera/data/token_file.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include <gtest/gtest.h>

#include "tessera/base/file.hpp"

#include "support/expect_error.hpp"
#include "support/temporary_folder.hpp"

namespace tessera::data {
namespace {

using test::expect_error;
using test::TemporaryFolder;

std::vector<Token> read(const TokenFile& file, std::int64_t begin, std::int64_t count) {
  std::vector<Token> tokens(static_cast<std::size_t>(count));
  file.read(begin, count, tokens.data());
  return tokens;
}

std::vector<Token> sequence(const TokenFile& file, std::int64_t s) {
  const std::int64_t begin = file.sequence_begin(s);
  return read(file, begin, file.sequence_begin(s + 1) - begin);
}

// What test/data/indexed/expected.json says.
TEST(TokenFile, ReadsPairsByOtherSoftware) {
  for (const char* name : {"uint16", "int32"}) {
    SCOPED_TRACE(name);
    const TokenFile file(std::string(TESSERA_TEST_DATA "/indexed/mmap-") + name);
    EXPECT_EQ(file.item_size(), std::string(name) == "int32" ? 4 : 2);
    EXPECT_EQ(file.sequences(), 1304);
    EXPECT_EQ(file.documents(), 300);
    EXPECT_EQ(file.tokens(), 16386);
    EXPECT_EQ(sequence(file, 0), (std::vector<Token>{672, 421, 938, 26}));
    EXPECT_EQ(sequence(file, 2), (std::vector<Token>{33, 274, 26}));
    EXPECT_EQ(sequence(file, 1303), (std::vector<Token>{44, 555, 12, 494, 12, 340, 930, 1}));
    EXPECT_EQ(read(file, file.sequence_begin(4) + 1, 3), (std::vector<Token>{421, 938, 26}));
    EXPECT_EQ(file.document_begin(1), file.sequence_begin(2));
    EXPECT_EQ(file.document_begin(7), file.sequence_begin(15));
    EXPECT_EQ(file.document_begin(300), file.tokens());
  }
}

TEST(TokenFile, WritesTheGoldenBytes) {
  const TemporaryFolder folder;
  TokenFileWriter writer(folder / "a", 1000);
  writer.add_document(std::vector<Token>{1, 2, 3});
  EXPECT_FALSE(TokenFile::present(folder / "a"));
  writer.add_document(std::vector<Token>{4, 999});
  writer.commit();
  const unsigned char golden[82] = {
      0x4d, 0x4d, 0x49, 0x44, 0x49, 0x44, 0x58, 0, 0,                       // magic
      1,    0,    0,    0,    0,    0,    0,    0, 8,                       // version, uint16
      2,    0,    0,    0,    0,    0,    0,    0, 3, 0, 0, 0, 0, 0, 0, 0,  // counts
      3,    0,    0,    0,    2,    0,    0,    0,                          // lengths
      0,    0,    0,    0,    0,    0,    0,    0, 6, 0, 0, 0, 0, 0, 0, 0,  // offsets
      0,    0,    0,    0,    0,    0,    0,    0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0};
  const std::string idx = read_text(folder / "a.idx");
  ASSERT_EQ(idx.size(), sizeof golden);
  EXPECT_EQ(std::memcmp(idx.data(), golden, sizeof golden), 0);
  const TokenFile file(folder / "a");
  EXPECT_EQ(read(file, 0, 5), (std::vector<Token>{1, 2, 3, 4, 999}));
}

TEST(TokenFile, LargeVocabulariesTakeFourBytes) {
  const TemporaryFolder folder;
  TokenFileWriter writer(folder / "a", 65500);
  EXPECT_EQ(writer.item_size(), 4);
  writer.add_document(std::vector<Token>{65499, 0});
  expect_error(Code::invalid_argument, {"65500"},
               [&] { writer.add_document(std::vector<Token>{65500}); });
  expect_error(Code::invalid_argument, {"-1"},
               [&] { writer.add_document(std::vector<Token>{-1}); });
  writer.commit();
  EXPECT_EQ(read(TokenFile(folder / "a"), 0, 2), (std::vector<Token>{65499, 0}));
}

TEST(TokenFile, DeepSpeedNumbersUint16Differently) {
  const TemporaryFolder folder;
  std::string idx = read_text(TESSERA_TEST_DATA "/indexed/mmap-uint16.idx");
  folder.file("a.bin", read_text(TESSERA_TEST_DATA "/indexed/mmap-uint16.bin"));
  idx[17] = 6;
  folder.file("a.idx", idx);
  const TokenFile file(folder / "a", IndexFlavour::deepspeed);
  EXPECT_EQ(sequence(file, 0), (std::vector<Token>{672, 421, 938, 26}));
  expect_error(Code::io, {"a.idx", "type code 6"}, [&] { TokenFile other(folder / "a"); });
}

TEST(TokenFile, RefusesDamagedPairs) {
  const std::string idx = read_text(TESSERA_TEST_DATA "/indexed/mmap-uint16.idx");
  const std::string bin = read_text(TESSERA_TEST_DATA "/indexed/mmap-uint16.bin");
  const auto refuse = [&](std::initializer_list<std::string_view> parts, auto&& change) {
    const TemporaryFolder folder;
    std::string changed_idx = idx;
    std::string changed_bin = bin;
    change(changed_idx, changed_bin);
    folder.file("a.idx", changed_idx);
    folder.file("a.bin", changed_bin);
    expect_error(Code::io, parts, [&] { TokenFile file(folder / "a"); });
  };
  using S = std::string&;
  refuse({"a.idx", "MMIDIDX"}, [](S i, S) { i = ""; });
  refuse({"a.idx", "MMIDIDX"}, [](S i, S) { i[0] = 'm'; });
  refuse({"version 2"}, [](S i, S) { i[9] = 2; });
  refuse({"type code 7"}, [](S i, S) { i[17] = 7; });
  refuse({"type code 99"}, [](S i, S) { i[17] = 99; });
  refuse({"too many"}, [](S i, S) { i[25] = 0x7f; });
  refuse({"too many"}, [](S i, S) { i[33] = 0x7f; });
  refuse({"need"}, [](S i, S) { i.resize(i.size() - 1); });
  refuse({"need"}, [](S i, S) { i[18]++; });
  refuse({"sequence 1 "}, [](S i, S) { i[34]++; });
  refuse({"sequence 0 "}, [](S i, S) { i[37] = static_cast<char>(0xff); });
  refuse({"sequence 1 "}, [](S i, S) { i[34 + 4 * 1304 + 8]++; });
  refuse({"documents"}, [](S i, S) { i[i.size() - 8]--; });
  refuse({"documents"}, [](S i, S) { i[i.size() - 16 + 7] = static_cast<char>(0x80); });
  refuse({"a.bin", "16386 tokens"}, [](S, S b) { b.resize(b.size() - 2); });
  refuse({"a.bin", "16386 tokens"}, [](S, S b) { b += "xx"; });
  expect_error(Code::io, {"missing.bin"}, [] { TokenFile file("/missing"); });
  const TokenFile whole(TESSERA_TEST_DATA "/indexed/mmap-uint16");
  Token token = 0;
  expect_error(Code::invalid_argument, {"16386"}, [&] { whole.read(16386, 1, &token); });
}

TEST(TokenFile, RefusesNegativeIds) {
  const TemporaryFolder folder;
  std::string bin = read_text(TESSERA_TEST_DATA "/indexed/mmap-int32.bin");
  bin[7] = static_cast<char>(0x80);
  folder.file("a.bin", bin);
  folder.file("a.idx", read_text(TESSERA_TEST_DATA "/indexed/mmap-int32.idx"));
  const TokenFile file(folder / "a");
  EXPECT_EQ(read(file, 0, 1), (std::vector<Token>{672}));
  expect_error(Code::io, {"a.bin", "token id"}, [&] { read(file, 0, 2); });
}

TEST(TokenFileWriter, LeavesNothingWithoutCommit) {
  const TemporaryFolder folder;
  {
    TokenFileWriter writer(folder / "a", 257);
    writer.add_document(std::vector<Token>{1});
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace tessera::data
