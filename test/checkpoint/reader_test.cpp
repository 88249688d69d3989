// SPDX-License-Identifier: Apache-2.0
// Reading parts on another rank count, and noticing every kind of damage.
#include "tessera/checkpoint/reader.hpp"

#include <cstring>
#include <fstream>

#include <gtest/gtest.h>

#include "tessera/base/file.hpp"
#include "tessera/checkpoint/checksum.hpp"

#include "checkpoint/checkpoint_fixture.hpp"

namespace tessera::checkpoint {
namespace {

using test::expect_error;

TEST_F(CheckpointTest, AnyOtherRankCountReadsItsOwnParts) {
  save_test_file();
  const Reader reader(world(), path_);
  const auto tensors = test_tensors();
  // As `others` ranks would: each rank here plays some of them.
  for (const int others : {1, 2, 3, 7, 64}) {
    std::int64_t before = reader.bytes_read();
    std::int64_t expected = 0;
    for (int other = rank(); other < others; other += ranks()) {
      for (const TensorRecord& part : sliced(tensors, other, others))
        for (const Piece& piece : part.pieces) {
          const std::size_t item = size_of(part.dtype);
          std::vector<std::byte> found(static_cast<std::size_t>(piece.count) * item);
          reader.read(part.path, piece.begin, piece.count, part.dtype, found.data());
          std::vector<std::byte> wanted(found.size());
          if (piece.data != nullptr)
            std::memcpy(wanted.data(), piece.data, wanted.size());
          else
            piece.fill(0, piece.count, wanted.data());
          EXPECT_EQ(found, wanted) << part.path;
          expected += static_cast<std::int64_t>(found.size());
        }
    }
    EXPECT_EQ(reader.bytes_read() - before, expected);
  }
}

TEST_F(CheckpointTest, ConvertsBetweenFloatingTypes) {
  save_test_file();
  const Reader reader(path_);
  std::vector<float> single(100);
  std::vector<bf16> narrow(100);
  reader.read("parameters/transformer.wte.weight", 3, 100, DType::fp32, single.data());
  reader.read("parameters/transformer.wte.weight", 3, 100, DType::bf16, narrow.data());
  for (std::size_t i = 0; i < 100; ++i) ASSERT_EQ(narrow[i].bits, bf16::from_float(single[i]).bits);
  std::vector<float> widened(33);
  reader.read("parameters/half", 0, 33, DType::fp32, widened.data());
  reader.read("parameters/half", 0, 33, DType::bf16, narrow.data());
  for (std::size_t i = 0; i < 33; ++i) ASSERT_EQ(widened[i], narrow[i].to_float());
  expect_error(Code::io, {"optimizer/steps", "int64"},
               [&] { reader.read("optimizer/steps", 0, 1, DType::fp32, single.data()); });
  expect_error(Code::invalid_argument, {"parameters/half", "33"},
               [&] { reader.read("parameters/half", 1, 33, DType::fp32, single.data()); });
  expect_error(Code::io, {path_, "parameters/nothing"},
               [&] { reader.dataset("parameters/nothing"); });
}

TEST_F(CheckpointTest, TheWeightsChecksumIsTheSumOverParameters) {
  save_test_file();
  std::uint64_t sum = 0;
  for (const TestTensor& tensor : test_tensors())
    if (tensor.path.starts_with("parameters/"))
      sum += checksum_range(tensor.path.substr(11), 0, tensor.bytes.data(), tensor.dtype,
                            tensor.shape.numel());
  EXPECT_EQ(Reader(path_).weights_checksum(), sum);
}

TEST_F(CheckpointTest, VerifyNamesTheDamagedDataset) {
  save_test_file();
  const Reader reader(world(), path_);
  EXPECT_TRUE(reader.verify(world()).empty());
  const DatasetInfo info = reader.dataset("optimizer/exp_avg/lm_head.weight");
  world().barrier();
  if (rank() == 0) {
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(info.offset + 2827);
    const char value = static_cast<char>(file.get() ^ 1);
    file.seekp(info.offset + 2827);
    file.put(value);
  }
  world().barrier();
  for (const std::vector<Damage>& damage : {reader.verify(world()), Reader(path_).verify()}) {
    ASSERT_EQ(damage.size(), 1u);
    EXPECT_EQ(damage[0].path, info.path);
    EXPECT_EQ(damage[0].expected, info.checksum);
    EXPECT_NE(damage[0].found, info.checksum);
  }
}

TEST_F(CheckpointTest, ForeignAndTruncatedFilesAreExplained) {
  save_test_file();
  const auto refuse = [&](const std::string& path, std::initializer_list<std::string_view> parts) {
    SCOPED_TRACE(path);
    expect_error(Code::io, parts, [&] { Reader reader(path); });
    expect_error(Code::io, parts, [&] { Reader reader(world(), path); });
  };
  refuse(folder_path_ + "/missing.h5", {"missing.h5", "No such file"});
  refuse(folder_path_, {folder_path_, "regular file"});
  refuse(TESSERA_TEST_DATA "/text/tinyshakespeare.txt", {"tinyshakespeare.txt", "not an HDF5"});
  const std::string text = read_text(path_);
  for (const std::size_t size :
       {text.size() - 1, text.size() - 30, text.size() / 2, std::size_t{100}}) {
    const std::string path = folder_path_ + "/short.h5";
    if (rank() == 0) std::ofstream(path, std::ios::binary) << text.substr(0, size);
    world().barrier();
    refuse(path, {"short.h5"});
    world().barrier();
  }
}

// As after another program has added to the file: its own checksums still guard the tensors.
TEST_F(CheckpointTest, AFileWithoutTrailerIsRead) {
  save_test_file();
  world().barrier();
  if (rank() == 0) {
    const std::string text = read_text(path_);
    std::int64_t end = 0;  // as the superblock names it
    std::memcpy(&end, text.data() + 28, sizeof end);
    ASSERT_LT(end, static_cast<std::int64_t>(text.size()));
    std::filesystem::resize_file(path_, static_cast<std::uintmax_t>(end));
  }
  world().barrier();
  const Reader reader(world(), path_);
  EXPECT_EQ(reader.state(), test_state());
  EXPECT_TRUE(reader.verify(world()).empty());
}

TEST_F(CheckpointTest, AFileWithoutACommitIsIncomplete) {
  const auto tensors = test_tensors();
  {
    Writer writer(world(), path_, test_header(), sliced(tensors, rank(), ranks()), test_state());
    writer.create();
    writer.write();
    world().barrier();
    if (rank() == 0)
      for (const auto& entry : std::filesystem::directory_iterator(folder_path_))
        std::filesystem::copy_file(entry.path(), path_);
    world().barrier();
    expect_error(Code::io, {path_, "incomplete"}, [&] { Reader reader(path_); });
  }
  EXPECT_EQ(files_in_folder(), 1u);
}

}  // namespace
}  // namespace tessera::checkpoint
