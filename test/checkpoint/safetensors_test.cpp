// SPDX-License-Identifier: Apache-2.0
// safetensors: a file by other software, round trips, and files that are wrong in every way.
#include "tessera/checkpoint/safetensors.hpp"

#include <cmath>
#include <cstring>
#include <filesystem>

#include <gtest/gtest.h>

#include "support/expect_error.hpp"
#include "support/temporary_folder.hpp"

namespace tessera::checkpoint {
namespace {

using test::expect_error;
using test::TemporaryFolder;

const std::string kModel = TESSERA_TEST_DATA "/models/gpt2-tiny/model.safetensors";

std::string with_header(std::string_view header, std::size_t data_bytes) {
  const std::uint64_t length = header.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  file += header;
  for (std::size_t i = 0; i < data_bytes; ++i) file += static_cast<char>(i);
  return file;
}

TEST(Safetensors, ReadsAFileByOtherSoftware) {
  const SafetensorsFile file(kModel);
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.entries().size(), 3u * 12 + 4);
  const SafetensorsEntry& entry = file.entry("transformer.h.1.attn.c_attn.weight");
  EXPECT_EQ(entry.stored_type, "F32");
  EXPECT_EQ(entry.shape, (Shape{64, 192}));
  std::vector<float> values(64 * 192);
  file.read(entry.name, DType::fp32, values.data());
  double squares = 0;
  for (const float v : values) squares += static_cast<double>(v) * static_cast<double>(v);
  EXPECT_GT(squares, 0.1);
  EXPECT_TRUE(std::isfinite(squares));
}

TEST(Safetensors, RangesAreTheSameElementsAsTheWhole) {
  const SafetensorsFile file(kModel);
  const std::string name = "transformer.wte.weight";
  const std::int64_t count = file.entry(name).shape.numel();
  std::vector<float> whole(static_cast<std::size_t>(count));
  file.read(name, DType::fp32, whole.data());
  for (const std::int64_t begin : {std::int64_t{0}, std::int64_t{1}, std::int64_t{4097}}) {
    const std::int64_t part = count - begin - 3;
    std::vector<bf16> narrow(static_cast<std::size_t>(part));
    file.read_range(name, begin, part, DType::bf16, narrow.data());
    for (std::int64_t i = 0; i < part; ++i)
      ASSERT_EQ(narrow[static_cast<std::size_t>(i)].bits,
                bf16::from_float(whole[static_cast<std::size_t>(begin + i)]).bits);
  }
  expect_error(Code::invalid_argument, {name, "elements"},
               [&] { file.read_range(name, 1, count, DType::fp32, whole.data()); });
}

TEST(Safetensors, WritesWhatItReads) {
  const TemporaryFolder folder;
  const std::string path = folder / "a.safetensors";
  const std::vector<float> a = {1, -2, 3.5f, NAN, 0, 1e-40f};
  const std::vector<bf16> b = {{0x3f80}, {0xffff}, {1}};
  const std::vector<std::int64_t> c = {-1, 1LL << 60};
  const std::vector<SafetensorsInput> tensors = {{"b", DType::bf16, {3}, b.data()},
                                                 {"a", DType::fp32, {2, 3}, a.data()},
                                                 {"scalar", DType::fp32, {}, a.data()},
                                                 {"empty", DType::fp32, {0, 7}, nullptr},
                                                 {"c", DType::int64, {2}, c.data()}};
  write_safetensors(path, tensors, {{"made_by", "a \"test\""}});
  const SafetensorsFile file(path);
  EXPECT_EQ(file.metadata().at("made_by"), "a \"test\"");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.entries().size(), 5u);
  EXPECT_EQ(file.entries()[0].name, "c");
  EXPECT_EQ(file.entries()[4].name, "b");
  EXPECT_EQ(std::filesystem::file_size(path) % 2, 0u);
  std::vector<float> a2(6);
  file.read("a", DType::fp32, a2.data());
  EXPECT_EQ(std::memcmp(a2.data(), a.data(), 24), 0);
  std::vector<bf16> b2(3);
  file.read("b", DType::bf16, b2.data());
  EXPECT_EQ(std::memcmp(b2.data(), b.data(), 6), 0);
  std::vector<std::int64_t> c2(2);
  file.read("c", DType::int64, c2.data());
  EXPECT_EQ(c2, c);
  file.read("empty", DType::fp32, nullptr);
  expect_error(Code::io, {"a.safetensors", "'c'", "I64", "fp32"},
               [&] { file.read("c", DType::fp32, a2.data()); });
  expect_error(Code::io, {"a.safetensors", "'d'"}, [&] { file.entry("d"); });
}

TEST(Safetensors, AFailedWriteLeavesTheOldFile) {
  const TemporaryFolder folder;
  const float one = 1;
  const SafetensorsInput tensor{"x", DType::fp32, {1}, &one};
  write_safetensors(folder / "a.safetensors", std::span(&tensor, 1));
  const std::vector<SafetensorsInput> twice = {tensor, tensor};
  expect_error(Code::invalid_argument, {"'x'", "taken"},
               [&] { write_safetensors(folder / "a.safetensors", twice); });
  EXPECT_EQ(SafetensorsFile(folder / "a.safetensors").entries().size(), 1u);
  expect_error(Code::io, {"nowhere"},
               [&] { write_safetensors(folder / "nowhere/a.safetensors", std::span(&tensor, 1)); });
}

TEST(Safetensors, RefusesDamagedFilesByNameAndTensor) {
  const TemporaryFolder folder;
  int files = 0;
  const auto refuse = [&](const std::string& content,
                          std::initializer_list<std::string_view> parts) {
    const std::string path = folder.file(std::to_string(files++) + ".safetensors", content);
    SCOPED_TRACE(path);
    expect_error(Code::io, parts, [&] { SafetensorsFile file(path); });
    expect_error(Code::io, {path}, [&] { SafetensorsFile file(path); });
  };
  refuse("", {"too few"});
  refuse("1234567", {"too few"});
  refuse(std::string(8, '\xff') + "{}", {"header length 18446744073709551615"});
  refuse(with_header("{}", 0).substr(0, 9), {"truncated"});
  refuse(with_header("[]", 0), {"begin with '{'"});
  refuse(with_header("{\"a\":", 0), {"not JSON"});
  refuse(with_header(R"({"a":1})", 0), {"'a'", "dtype"});
  refuse(with_header(R"({"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}})", 4),
         {"'a'", "unknown dtype 'F31'"});
  refuse(with_header(R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4),
         {"'a'", "-1"});
  refuse(with_header(R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", 4),
         {"'a'", "1.5"});
  refuse(with_header(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4),
         {"'a'", "needs 8 bytes", "hold 4"});
  refuse(with_header(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4), {"'a'"});
  refuse(with_header(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4),
         {"'a'", "1 entries"});
  refuse(with_header(
             R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", 0),
         {"'a'", "impossible shape"});
  refuse(with_header(
             R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0),
         {"'a'", "impossible shape"});
  refuse(with_header(R"({"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,0]}})",
                     0),
         {"'a'"});
  refuse(with_header(R"({"a":{"dtype":"F4","shape":[1],"data_offsets":[0,1]}})", 1), {"'a'"});
  refuse(with_header(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                     R"("b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})",
                     6),
         {"'b'", "overlap"});
  refuse(with_header(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                     R"("b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})",
                     12),
         {"'b'", "hole"});
  refuse(with_header(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                     R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
                     8),
         {"'a'", "twice"});
  refuse(with_header(R"({"a":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}})", 4),
         {"'shape'", "twice"});
  refuse(with_header(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 7),
         {"truncated", "8 bytes"});
  refuse(with_header(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 9), {"too long"});
  refuse(with_header(R"({"__metadata__":{"a":1}})", 0), {"__metadata__"});
  expect_error(Code::io, {"missing"}, [&] { SafetensorsFile file(folder / "missing"); });
  expect_error(Code::io, {folder.path()}, [&] { SafetensorsFile file(folder.path()); });
}

TEST(Safetensors, ForeignTypesAreListedButNotRead) {
  const TemporaryFolder folder;
  const std::string path =
      folder.file("a.safetensors",
                  with_header(R"({"a":{"dtype":"F8_E4M3","shape":[3],"data_offsets":[0,3]}})", 3));
  const SafetensorsFile file(path);
  EXPECT_EQ(file.entries()[0].shape.numel(), 3);
  float out[3];
  expect_error(Code::not_supported, {"F8_E4M3", "'a'"}, [&] { file.read("a", DType::fp32, out); });
}

}  // namespace
}  // namespace tessera::checkpoint
