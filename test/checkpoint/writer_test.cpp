// SPDX-License-Identifier: Apache-2.0
// Saving on several ranks: content, size, and that a file is whole or absent.
#include "tessera/checkpoint/writer.hpp"

#include <cstring>
#include <thread>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"
#include "tessera/checkpoint/checksum.hpp"

#include "checkpoint/checkpoint_fixture.hpp"

namespace tessera::checkpoint {
namespace {

using test::expect_error;

void expect_same_content(const Reader& reader, const std::vector<TestTensor>& tensors) {
  ASSERT_EQ(reader.datasets().size(), tensors.size());
  for (const TestTensor& tensor : tensors) {
    const DatasetInfo& info = reader.dataset(tensor.path);
    EXPECT_EQ(info.shape, tensor.shape) << tensor.path;
    EXPECT_EQ(info.dtype, tensor.dtype) << tensor.path;
    std::vector<std::byte> bytes(tensor.bytes.size());
    reader.read(tensor.path, 0, tensor.shape.numel(), tensor.dtype, bytes.data());
    EXPECT_EQ(bytes, tensor.bytes) << tensor.path;
    EXPECT_EQ(info.checksum, checksum_range(checksum_name(tensor.path), 0, tensor.bytes.data(),
                                            tensor.dtype, tensor.shape.numel()));
  }
}

TEST_F(CheckpointTest, KeepsEverythingWhateverTheRankCount) {
  const WriteReport report = save_test_file();
  const Reader reader(world(), path_);
  expect_same_content(reader, test_tensors());
  EXPECT_EQ(reader.header().step, 100);
  EXPECT_EQ(reader.header().samples, 3200);
  EXPECT_EQ(reader.header().tokens, 819200);
  EXPECT_EQ(reader.header().model, test_header().model);
  EXPECT_EQ(reader.header().config, test_header().config);
  EXPECT_EQ(reader.state(), test_state());
  EXPECT_EQ(reader.format_version(), 1);
  EXPECT_EQ(files_in_folder(), 1u);

  std::int64_t bytes = 0;
  for (const TestTensor& tensor : test_tensors())
    bytes += static_cast<std::int64_t>(tensor.bytes.size());
  EXPECT_EQ(world().all_reduce_scalar(report.bytes, Reduction::sum), bytes);
  EXPECT_EQ(report.file_bytes, static_cast<std::int64_t>(std::filesystem::file_size(path_)));
}

// Long enough for whole pages to go past the page cache, between a head and a tail that do not.
TEST_F(CheckpointTest, LongRunsAreWrittenWhereverTheyBegin) {
  const std::vector<TestTensor> tensors =
      filled({{"parameters/odd", {1'000'003}, DType::uint8, {}},
              {"parameters/narrow", {701'001}, DType::bf16, {}},
              {"parameters/wide", {1237, 1001}, DType::fp32, {}}});
  for (const std::int64_t staging : {std::int64_t{4} << 20, std::int64_t{300'000}}) {
    WriteOptions options;
    options.staging_bytes = staging;
    options.replace = true;
    const WriteReport report =
        save(world(), path_, test_header(), sliced(tensors, rank(), ranks()), {}, options);
    // A run that the buffer holds takes three transfers at most.
    EXPECT_LE(report.writes, 3 * (report.bytes / staging + 3));
    const Reader reader(world(), path_);
    expect_same_content(reader, tensors);
    world().barrier();
  }
}

TEST_F(CheckpointTest, TheStagingBoundChangesOnlyTheNumberOfWrites) {
  const std::int64_t writes = save_test_file().writes;
  std::filesystem::path first(path_);
  path_ = folder_path_ + "/step-00000101.h5";
  WriteOptions options;
  options.staging_bytes = 1;
  EXPECT_GE(save_test_file(options).writes, writes);
  expect_same_content(Reader(path_), test_tensors());
}

TEST_F(CheckpointTest, WritingMayRunOnAnotherThread) {
  const auto tensors = test_tensors();
  Writer writer(world(), path_, test_header(), sliced(tensors, rank(), ranks()), test_state());
  writer.create();
  std::thread([&] { writer.write(); }).join();
  writer.commit();
  expect_same_content(Reader(path_), tensors);
}

TEST_F(CheckpointTest, SizeStaysWithinItsFormula) {
  const std::int64_t layers = 48;
  const std::int64_t width = 32;
  std::vector<float> zeros(static_cast<std::size_t>(width * width));
  std::vector<TensorRecord> records;
  std::int64_t data = 0;
  for (const char* group : {"parameters", "optimizer/exp_avg", "optimizer/exp_avg_sq"})
    for (std::int64_t layer = 0; layer < layers; ++layer)
      for (const char* name : {"attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight"}) {
        TensorRecord record;
        record.path = std::string(group) + "/transformer.h." + std::to_string(layer) + "." + name;
        record.shape = Shape{width, width};
        if (rank() == 0) record.pieces.push_back({0, width * width, zeros.data(), {}});
        records.push_back(record);
        data += width * width * 4;
      }
  const auto datasets = static_cast<std::int64_t>(records.size());
  const std::int64_t size = save(world(), path_, test_header(), records, test_state()).file_bytes;
  EXPECT_LE(size, data + data / 1000 + 512 * datasets + 65536);
  EXPECT_GE(size, data);
}

TEST_F(CheckpointTest, NeighbouringPiecesAreOneTransfer) {
  std::vector<float> values(1000);
  std::vector<TensorRecord> records;
  for (int i = 0; i < 20; ++i) {
    TensorRecord record;
    record.path = "parameters/" + std::to_string(i);
    record.shape = Shape{1000};
    if (i % ranks() == rank()) record.pieces.push_back({0, 1000, values.data(), {}});
    records.push_back(record);
  }
  const WriteReport report = save(world(), path_, test_header(), records, {});
  EXPECT_LE(report.writes, ranks() == 1 ? 2 : 20);
}

TEST_F(CheckpointTest, NeverOverwritesUnlessTold) {
  save_test_file();
  expect_error(Code::io, {path_, "exists already"}, [&] { save_test_file(); });
  EXPECT_EQ(files_in_folder(), 1u);
  WriteOptions options;
  options.replace = true;
  save_test_file(options);
  EXPECT_TRUE(Reader(path_).verify().empty());
  EXPECT_EQ(files_in_folder(), 1u);
}

// A process that is killed leaves what it has: the temporary file, never the final name.
TEST_F(CheckpointTest, AFailureAnywhereLeavesNothingWithTheFinalName) {
  for (const char* where : {"create", "write", "flush", "seal", "rename"}) {
    SCOPED_TRACE(where);
    const bool on_first_rank_only = std::string(where) == "create" ||
                                    std::string(where) == "seal" || std::string(where) == "rename";
    const int failing = on_first_rank_only ? 0 : ranks() - 1;
    bool seen_final_name = false;
    fault_hook() = [&](const char* point) {
      seen_final_name |= std::filesystem::exists(path_);
      if (rank() == failing && std::string(point) == where)
        throw Error(Code::io, std::string("no space left at ") + point);
    };
    expect_error(Code::io, {"no space left at", where}, [&] { save_test_file(); });
    fault_hook() = nullptr;
    EXPECT_FALSE(seen_final_name);
    EXPECT_EQ(files_in_folder(), 0u);
  }
  save_test_file();
  EXPECT_TRUE(Reader(path_).verify().empty());
}

TEST_F(CheckpointTest, AFailedReplacementKeepsTheOldFile) {
  save_test_file();
  fault_hook() = [](const char* point) {
    if (std::string(point) == "write") throw Error(Code::io, "disk full");
  };
  WriteOptions options;
  options.replace = true;
  expect_error(Code::io, {"disk full"}, [&] { save_test_file(options); });
  fault_hook() = nullptr;
  EXPECT_TRUE(Reader(path_).verify().empty());
  EXPECT_EQ(files_in_folder(), 1u);
}

TEST_F(CheckpointTest, AMissingFolderIsOneErrorOnAllRanks) {
  path_ = folder_path_ + "/missing/step-1.h5";
  expect_error(Code::io, {"missing"}, [&] { save_test_file(); });
}

TEST_F(CheckpointTest, PiecesMustTileEveryTensor) {
  const std::vector<float> values(100);
  const auto refuse = [&](std::vector<Piece> pieces,
                          std::initializer_list<std::string_view> parts) {
    TensorRecord record{"parameters/w", Shape{10}, DType::fp32, {}};
    if (rank() == ranks() - 1) record.pieces = std::move(pieces);
    expect_error(Code::invalid_argument, parts,
                 [&] { save(world(), path_, test_header(), {record}, {}); });
  };
  refuse({}, {"parameters/w", "hole or overlap"});
  refuse({{0, 9, values.data(), {}}}, {"parameters/w", "hole or overlap"});
  refuse({{0, 5, values.data(), {}}, {6, 4, values.data(), {}}}, {"hole or overlap"});
  refuse({{0, 5, values.data(), {}}, {4, 6, values.data(), {}}}, {"hole or overlap"});
  refuse({{0, 5, values.data(), {}}, {0, 5, values.data(), {}}}, {"hole or overlap"});
  refuse({{0, 11, values.data(), {}}}, {"parameters/w", "elements [0, 0 + 11)"});
  refuse({{-1, 5, values.data(), {}}}, {"parameters/w"});
  refuse({{0, 10, nullptr, {}}}, {"parameters/w", "neither"});
  EXPECT_EQ(files_in_folder(), 0u);
}

TEST_F(CheckpointTest, RanksMustListTheSameDatasets) {
  if (ranks() == 1) return;
  TensorRecord record{rank() == 0 ? "parameters/a" : "parameters/b", Shape{0}, DType::fp32, {}};
  expect_error(Code::invalid_argument, {"different datasets"},
               [&] { save(world(), path_, test_header(), {record}, {}); });
}

}  // namespace
}  // namespace tessera::checkpoint
