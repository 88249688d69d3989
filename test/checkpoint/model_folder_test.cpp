// SPDX-License-Identifier: Apache-2.0
// Exported folders, read back by our reader and by plain code that knows only the format's text.
#include "tessera/checkpoint/model_folder.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <span>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/base/file.hpp"
#include "tessera/checkpoint/checksum.hpp"
#include "tessera/checkpoint/model_weights.hpp"

#include "checkpoint_fixture.hpp"

namespace tessera::checkpoint {
namespace {

using test::expect_error;
using Json = nlohmann::json;
namespace fs = std::filesystem;

const TestTensor& find(const std::vector<TestTensor>& tensors, const std::string& path) {
  for (const TestTensor& tensor : tensors)
    if (tensor.path == path) return tensor;
  throw std::runtime_error(path);
}

/// What a safetensors file holds, read by its rules alone: 8 bytes of length, JSON, data.
struct PlainFile {
  Json header;
  std::string data;

  explicit PlainFile(const std::string& path) {
    const std::string file = read_text(path);
    std::uint64_t length = 0;
    std::memcpy(&length, file.data(), 8);
    EXPECT_EQ(length % 8, 0u);
    header = Json::parse(file.substr(8, length));
    data = file.substr(8 + length);
  }

  void check(const std::string& dtype, std::size_t width) const {
    EXPECT_EQ(header.at("__metadata__").at("format"), "pt");
    std::vector<std::pair<std::size_t, std::size_t>> ranges;
    for (const auto& [name, tensor] : header.items()) {
      if (name == "__metadata__") continue;
      EXPECT_EQ(tensor.at("dtype"), dtype) << name;
      std::size_t bytes = width;
      for (const auto& size : tensor.at("shape")) bytes *= size.get<std::size_t>();
      const auto begin = tensor.at("data_offsets")[0].get<std::size_t>();
      const auto end = tensor.at("data_offsets")[1].get<std::size_t>();
      EXPECT_EQ(end - begin, bytes) << name;
      EXPECT_EQ(begin % width, 0u) << name;
      ranges.emplace_back(begin, end);
    }
    std::sort(ranges.begin(), ranges.end());
    std::size_t position = 0;
    for (const auto& [begin, end] : ranges) {
      EXPECT_EQ(begin, position);
      position = end;
    }
    EXPECT_EQ(position, data.size());
  }

  std::string bytes_of(const std::string& name) const {
    const auto& offsets = header.at(name).at("data_offsets");
    const auto begin = offsets[0].get<std::size_t>();
    return data.substr(begin, offsets[1].get<std::size_t>() - begin);
  }
};

class ModelFolderTest : public CheckpointTest {
 protected:
  void SetUp() override {
    CheckpointTest::SetUp();
    save_test_file();
    target_ = folder_path_ + "/out";
  }

  /// The fp32 parameters of the test file under other names: "w.<name>".
  static std::vector<FolderTensor> exported() {
    std::vector<FolderTensor> list;
    for (const TestTensor& tensor : test_tensors())
      if (tensor.path.starts_with("parameters/") && tensor.dtype == DType::fp32)
        list.push_back({tensor.path, "w." + tensor.path.substr(11)});
    return list;
  }

  FolderReport write(const FolderOptions& options = {}) {
    const Reader reader(world(), path_);
    const auto report = write_model_folder(world(), reader, exported(), target_, options);
    world().barrier();
    return report;
  }

  /// Replaces the test file by one whose lm_head.weight begins with these values.
  void save_with(std::vector<float> values) {
    std::vector<TestTensor> tensors = test_tensors();
    for (TestTensor& tensor : tensors)
      if (tensor.path == "parameters/lm_head.weight")
        std::memcpy(tensor.bytes.data(), values.data(), values.size() * sizeof(float));
    save(world(), path_, test_header(), sliced(tensors, rank(), ranks()), {}, {.replace = true});
  }

  std::string target_;
};

TEST_F(ModelFolderTest, OneFileKeepsEveryBit) {
  FolderOptions options;
  options.texts["config.json"] = "{}";
  options.copies["copy.txt"] = TESSERA_TEST_DATA "/models/gpt2-tiny/config.json";
  options.staging_bytes = 16384;  // blocks of 1024 elements, so that there are several
  const FolderReport report = write(options);
  EXPECT_EQ(report.shards, 1);
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(target_)) names.insert(entry.path().filename());
  EXPECT_EQ(names, (std::set<std::string>{"config.json", "copy.txt", "model.safetensors"}));
  EXPECT_EQ(read_text(target_ + "/config.json"), "{}");
  EXPECT_EQ(read_text(target_ + "/copy.txt"), read_text(options.copies["copy.txt"]));
  const PlainFile plain(target_ + "/model.safetensors");
  plain.check("F32", 4);
  EXPECT_EQ(static_cast<std::size_t>(report.bytes), plain.data.size());
  const auto tensors = test_tensors();
  for (const FolderTensor& tensor : exported()) {
    const TestTensor& expected = find(tensors, tensor.dataset);
    const std::string found = plain.bytes_of(tensor.name);
    EXPECT_TRUE(std::ranges::equal(std::as_bytes(std::span(found)), expected.bytes)) << tensor.name;
  }
  EXPECT_EQ(ModelWeights(target_).names().size(), exported().size());
}

TEST_F(ModelFolderTest, NarrowTypesAreTheConversionOfEachElement) {
  save_with({1.0f, -1.0f, 1.00390625f, 65504.0f, 65519.0f, 5.9604645e-8f, 1e-9f, -0.0f, NAN,
             INFINITY, -INFINITY, 0.1f});
  const Reader reader(path_);
  for (const DType dtype : {DType::bf16, DType::fp16}) {
    FolderOptions options;
    options.dtype = dtype;
    options.replace = true;
    options.texts["config.json"] = "{}";
    write(options);
    const PlainFile plain(target_ + "/model.safetensors");
    plain.check(dtype == DType::bf16 ? "BF16" : "F16", 2);
    for (const FolderTensor& tensor : exported()) {
      const auto count = static_cast<std::size_t>(reader.dataset(tensor.dataset).shape.numel());
      std::vector<float> values(count);
      reader.read(tensor.dataset, 0, static_cast<std::int64_t>(count), DType::fp32, values.data());
      const std::string found = plain.bytes_of(tensor.name);
      for (std::size_t i = 0; i < count; ++i) {
        std::uint16_t bits = 0;
        std::memcpy(&bits, found.data() + 2 * i, 2);
        ASSERT_EQ(bits, dtype == DType::bf16 ? bf16::from_float(values[i]).bits
                                             : fp16::from_float(values[i]).bits)
            << tensor.name << " " << i << " " << values[i];
      }
    }
    world().barrier();
  }
}

TEST_F(ModelFolderTest, ShardsHoldEachTensorOnceAndTheIndexSaysWhere) {
  FolderOptions options;
  options.max_shard_bytes = 2400;  // lm_head and c_attn are larger
  const FolderReport report = write(options);
  EXPECT_EQ(report.shards, 4);
  EXPECT_FALSE(fs::exists(target_ + "/model.safetensors"));
  const Json index = Json::parse(read_text(target_ + "/model.safetensors.index.json"));
  EXPECT_EQ(index.at("metadata").at("total_size"), report.bytes);
  const Json& map = index.at("weight_map");
  EXPECT_EQ(map.size(), exported().size());
  std::size_t total = 0;
  std::size_t tensors = 0;
  for (std::int64_t i = 1; i <= report.shards; ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i, report.shards);
    const PlainFile plain(target_ + "/" + name);
    plain.check("F32", 4);
    total += plain.data.size();
    tensors += plain.header.size() - 1;
    for (const auto& [tensor, entry] : plain.header.items())
      if (tensor != "__metadata__") {
        EXPECT_EQ(map.at(tensor), name);
      }
    EXPECT_TRUE(plain.data.size() <= 2400 || plain.header.size() == 2) << name;
  }
  EXPECT_EQ(tensors, exported().size());
  EXPECT_EQ(total, static_cast<std::size_t>(report.bytes));
  const ModelWeights weights(target_);
  const auto expected = test_tensors();
  for (const FolderTensor& tensor : exported()) {
    const TestTensor& original = find(expected, tensor.dataset);
    EXPECT_EQ(weights.shape(tensor.name), original.shape);
    std::vector<std::byte> found(original.bytes.size());
    weights.read(tensor.name, DType::fp32, found.data());
    EXPECT_EQ(found, original.bytes) << tensor.name;
  }
}

TEST_F(ModelFolderTest, EachByteIsReadOnce) {
  const Reader reader(world(), path_);
  const FolderReport report = write_model_folder(world(), reader, exported(), target_);
  std::int64_t sum = reader.bytes_read();
  world().all_reduce(&sum, 1, DType::int64, Reduction::sum).wait();
  EXPECT_EQ(sum, report.bytes);
}

TEST_F(ModelFolderTest, DamagedWeightsAreNotExported) {
  if (rank() == 0) {
    const DatasetInfo info = Reader(path_).dataset("parameters/cube");
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(info.offset + 3);
    file.put('\x7f');
  }
  world().barrier();
  for (const DType dtype : {DType::fp32, DType::fp16}) {
    FolderOptions options;
    options.dtype = dtype;
    expect_error(Code::io, {path_, "damaged", "parameters/cube", "expected", "found"},
                 [&] { write(options); });
  }
  EXPECT_EQ(files_in_folder(), 1u);
}

TEST_F(ModelFolderTest, ValuesThatDoNotFitAreNamed) {
  save_with({1.0f, 2.0f, 65520.0f});
  FolderOptions options;
  options.dtype = DType::fp16;
  expect_error(Code::invalid_argument,
               {"element 2", "parameters/lm_head.weight", "65520", "fp16", "bf16"},
               [&] { write(options); });
  EXPECT_EQ(files_in_folder(), 1u);
  save_with({1.0f, -3.4e38f});
  options.dtype = DType::bf16;
  expect_error(Code::invalid_argument, {"element 1", "-3.4e+38", "bf16", "fp32"},
               [&] { write(options); });
  EXPECT_EQ(files_in_folder(), 1u);
}

TEST_F(ModelFolderTest, WhatExistsIsReplacedOnlyWhenToldAndOnlyIfItIsAModelFolder) {
  FolderOptions options;
  options.texts["config.json"] = "1";
  write(options);
  options.texts["config.json"] = "2";
  expect_error(Code::io, {target_, "exists already"}, [&] { write(options); });
  EXPECT_EQ(read_text(target_ + "/config.json"), "1");
  world().barrier();
  options.replace = true;
  target_ += "/";
  write(options);
  EXPECT_EQ(read_text(target_ + "config.json"), "2");
  world().barrier();
  if (rank() == 0) fs::create_directory(target_ + "sub");
  world().barrier();
  expect_error(Code::invalid_argument, {"not a model folder"}, [&] { write(options); });
  target_ = path_;
  expect_error(Code::invalid_argument, {"not a model folder"}, [&] { write(options); });
  EXPECT_EQ(files_in_folder(), 2u);
}

TEST_F(ModelFolderTest, AFailureAnywhereLeavesNothing) {
  for (const char* point : {"create", "write", "flush", "rename"})
    for (const int failing : {0, ranks() - 1}) {
      SCOPED_TRACE(fmt::format("{} on rank {}", point, failing));
      const bool on_all = std::string(point) == "write" || std::string(point) == "flush";
      if (!on_all && failing != 0) continue;
      fault_hook() = [&, point](const char* reached) {
        if (rank() == failing && std::string(reached) == point)
          fail(Code::io, "No space left on device");
      };
      expect_error(Code::io, {"No space left"}, [&] { write(); });
      fault_hook() = nullptr;
      EXPECT_EQ(files_in_folder(), 1u);
    }
  write();
  EXPECT_EQ(files_in_folder(), 2u);
}

TEST_F(ModelFolderTest, OtherTypesAndSizesAreRefused) {
  FolderOptions options;
  options.dtype = DType::fp64;
  expect_error(Code::invalid_argument, {"fp64", "bf16"}, [&] { write(options); });
  options = {};
  options.max_shard_bytes = 0;
  expect_error(Code::invalid_argument, {"shard"}, [&] { write(options); });
  const Reader reader(world(), path_);
  const std::vector<FolderTensor> missing = {{"parameters/nothing", "a"}};
  expect_error(Code::io, {"parameters/nothing"},
               [&] { write_model_folder(world(), reader, missing, target_); });
  const std::vector<FolderTensor> codes = {{"optimizer/codes", "a"}};
  expect_error(Code::io, {"optimizer/codes", "uint8"},
               [&] { write_model_folder(world(), reader, codes, target_); });
}

TEST(DivideIntoShards, AsHuggingFaceDoes) {
  using Shards = std::vector<std::vector<std::size_t>>;
  const auto divide = [](std::vector<std::int64_t> bytes, std::int64_t most) {
    return divide_into_shards(bytes, most);
  };
  EXPECT_EQ(divide({1, 2, 3}, 6), (Shards{{0, 1, 2}}));
  EXPECT_EQ(divide({1, 2, 3}, 5), (Shards{{0, 1}, {2}}));
  EXPECT_EQ(divide({4, 9, 1, 5}, 5), (Shards{{1}, {0, 2}, {3}}));
  EXPECT_EQ(divide({9, 9}, 1), (Shards{{0}, {1}}));
  EXPECT_EQ(divide({0, 0}, 1), (Shards{{0, 1}}));
}

}  // namespace
}  // namespace tessera::checkpoint
