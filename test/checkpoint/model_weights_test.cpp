// SPDX-License-Identifier: Apache-2.0
// Model folders: one file, shards with an index, and what can be wrong with them.
#include "tessera/checkpoint/model_weights.hpp"

#include <filesystem>

#include <gtest/gtest.h>

#include "support/expect_error.hpp"
#include "support/temporary_folder.hpp"

namespace tessera::checkpoint {
namespace {

using test::expect_error;
using test::TemporaryFolder;

void write_shard(const std::string& path,
                 const std::vector<std::pair<std::string, float>>& values) {
  std::vector<SafetensorsInput> tensors;
  for (const auto& [name, value] : values) tensors.push_back({name, DType::fp32, {1}, &value});
  write_safetensors(path, tensors);
}

TEST(ModelWeights, ASingleFile) {
  const ModelWeights weights(TESSERA_TEST_DATA "/models/gpt2-tiny");
  EXPECT_EQ(weights.names().size(), 40u);
  EXPECT_EQ(weights.shape("transformer.wpe.weight"), (Shape{128, 64}));
  EXPECT_EQ(weights.dtype("transformer.wpe.weight"), DType::fp32);
  expect_error(Code::io, {"gpt2-tiny", "'nothing'"}, [&] { weights.shape("nothing"); });
}

TEST(ModelWeights, BothPrefixStyles) {
  const TemporaryFolder folder;
  write_shard(folder / "model.safetensors",
              {{"wte.weight", 1.0f}, {"transformer.wpe.weight", 2.0f}});
  const ModelWeights weights(folder.path());
  const std::string prefix = "transformer.";
  EXPECT_EQ(weights.find("transformer.wte.weight", prefix), "wte.weight");
  EXPECT_EQ(weights.find("transformer.wpe.weight", prefix), "transformer.wpe.weight");
  EXPECT_EQ(weights.find("wpe.weight", prefix), "transformer.wpe.weight");
  EXPECT_EQ(weights.find("wte.weight", prefix), "wte.weight");
  EXPECT_EQ(weights.find("transformer.ln_f.weight", prefix), "");
}

TEST(ModelWeights, ShardsWithAnIndex) {
  const TemporaryFolder folder;
  write_shard(folder / "a.safetensors", {{"x", 1.0f}, {"y", 2.0f}});
  write_shard(folder / "b.safetensors", {{"z", 3.0f}});
  folder.file("model.safetensors.index.json",
              R"({"metadata":{"total_size":12},"weight_map":{"x":"a.safetensors",)"
              R"("y":"a.safetensors","z":"b.safetensors"}})");
  ASSERT_TRUE(ModelWeights::present(folder.path()));
  const ModelWeights weights(folder.path());
  EXPECT_EQ(weights.names(), (std::vector<std::string>{"x", "y", "z"}));
  float value = 0;
  weights.read("z", DType::fp32, &value);
  EXPECT_EQ(value, 3.0f);
  double wide = 0;
  weights.read_range("y", 0, 1, DType::fp64, &wide);
  EXPECT_EQ(wide, 2.0);
}

TEST(ModelWeights, SaysWhatAnIndexLacks) {
  const auto refuse = [](const std::string& index, std::initializer_list<std::string_view> parts) {
    const TemporaryFolder folder;
    write_shard(folder / "a.safetensors", {{"x", 1.0f}, {"y", 2.0f}});
    write_shard(folder / "b.safetensors", {{"y", 3.0f}});
    folder.file("model.safetensors.index.json", index);
    expect_error(Code::io, parts, [&] { ModelWeights weights(folder.path()); });
  };
  refuse(R"({"weight_map":{"x":"c.safetensors"}})", {"c.safetensors", "missing"});
  refuse(R"({"weight_map":{"z":"a.safetensors"}})", {"'z'", "a.safetensors"});
  refuse(R"({"weight_map":{"x":"../a.safetensors"}})", {"'x'", "../a.safetensors"});
  refuse(R"({"weight_map":{"x":1}})", {"'x'"});
  refuse(R"({"weight_map":{}})", {"weight_map"});
  refuse(R"([1])", {"weight_map"});
  refuse("{", {"not JSON"});
  refuse(R"({"weight_map":{"x":"a.safetensors","y":"b.safetensors"}})", {"'y'", "a.safetensors"});
}

TEST(ModelWeights, AFolderWithoutWeights) {
  const TemporaryFolder folder;
  EXPECT_FALSE(ModelWeights::present(folder.path()));
  EXPECT_FALSE(ModelWeights::present(folder / "missing"));
  expect_error(Code::io, {folder.path(), "neither"}, [&] { ModelWeights weights(folder.path()); });
}

}  // namespace
}  // namespace tessera::checkpoint
