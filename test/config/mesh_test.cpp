// SPDX-License-Identifier: Apache-2.0
// Sizes of the mesh: from `mesh` and from DeepSpeed's keys, with and without a rank count.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tessera/config/report.hpp"

#include "config/support.hpp"

namespace tessera::config {
namespace {

using namespace testing;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

const std::string kTensor = "engine.tensor_parallel.autotp_size";

/// A run file without a mesh of its own.
RunConfig described(std::vector<std::string> set, std::optional<int> ranks = {},
                    const std::string& text = with_engine("  train_batch_size: 32\n")) {
  ReadOptions options;
  options.set = std::move(set);
  RunConfig config = read_run_text(text, "run.yaml", options);
  Facts facts;
  facts.ranks = ranks;
  resolve(config, facts);
  return config;
}

MeshConfig mesh_of(int data, int pipeline, int sequence, int tensor) {
  return {data, tensor, pipeline, sequence, 1};
}

std::string key_of(const std::string& set) {
  return set.substr(0, set.find('='));
}

std::string source_of(const RunConfig& config, const std::string& path) {
  for (const Entry& entry : config.entries)
    if (entry.path == path) return entry.value + " " + entry.source.to_string();
  return "";
}

TEST(Mesh, TakesAllRanksForData) {
  const RunConfig config = described({}, 8);
  EXPECT_EQ(config.mesh, mesh_of(8, 1, 1, 1));
  EXPECT_EQ(source_of(config, "mesh.data"), "8 derived: the number of ranks");
  EXPECT_EQ(source_of(config, "mesh.tensor"), "1 derived: the default");
  EXPECT_EQ(described({}).mesh, mesh_of(1, 1, 1, 1));
}

TEST(Mesh, SharesOfActivationsThatDoNothingAreSaid) {
  const std::string tokens = "mesh.sequence_parallel=true";
  const std::string inputs = "engine.activation_checkpointing.partition_activations=true";
  EXPECT_THAT(described({tokens}, 4).notices,
              ElementsAre("--set: `mesh.sequence_parallel` has no effect: mesh.tensor is 1, and "
                          "the ranks of that axis share the tokens"));
  EXPECT_TRUE(described({tokens, kTensor + "=2"}, 4).mesh.sequence_parallel);
  EXPECT_THAT(described({tokens, kTensor + "=2"}, 4).notices, ElementsAre());
  EXPECT_THAT(described({tokens, inputs, "mesh.tensor=2", "run.recompute=full"}, 4).notices,
              ElementsAre(HasSubstr("with mesh.sequence_parallel the inputs of blocks are shares "
                                    "already")));
  EXPECT_THAT(described({inputs, "mesh.tensor=2"}, 4).notices,
              ElementsAre(HasSubstr("with run.recompute none no block keeps its input alone")));
  const std::string on_host = "engine.activation_checkpointing.cpu_checkpointing=true";
  EXPECT_THAT(described({on_host, "run.recompute=full", "device=cpu"}, 4).notices,
              ElementsAre(HasSubstr("with device cpu activations are in host memory already")));
}

TEST(Mesh, DataIsWhatTheOtherAxesLeave) {
  const RunConfig config = described({"mesh={data: auto, pipeline: 2, tensor: 2}"}, 16);
  EXPECT_EQ(config.mesh, mesh_of(4, 2, 1, 2));
  EXPECT_EQ(source_of(config, "mesh.data"), "4 derived: the ranks that the other axes leave");
  EXPECT_EQ(source_of(config, "mesh.pipeline"), "2 --set");
  EXPECT_EQ(config.engine.batch, (Batch{32, 8, 1}));  // over the 4 data ranks
  EXPECT_EQ(described({"mesh.tensor=2"}).mesh, mesh_of(1, 1, 1, 2));
}

TEST(Mesh, DeepSpeedsKeysMeanTheSame) {
  EXPECT_EQ(described({"engine.pipeline.stages=2"}, 8).mesh, mesh_of(4, 2, 1, 1));
  EXPECT_EQ(described({"engine.sequence_parallel_size=2"}, 8).mesh, mesh_of(4, 1, 2, 1));
  EXPECT_EQ(described({kTensor + "=4"}, 8).mesh, mesh_of(2, 1, 1, 4));
  EXPECT_EQ(described({"engine.tensor_parallel.tp.tp_size=4"}, 8).mesh, mesh_of(2, 1, 1, 4));
  EXPECT_EQ(described({"engine.data_parallel_size=4", kTensor + "=2"}, 8).mesh,
            mesh_of(4, 1, 1, 2));
  const RunConfig config = described(
      {kTensor + "=4", "mesh.tensor=4", "mesh.pipeline=auto", "engine.pipeline.stages=2"}, 8);
  EXPECT_EQ(config.mesh, mesh_of(1, 2, 1, 4));
  EXPECT_EQ(source_of(config, "mesh.pipeline"), "2 derived: engine.pipeline.stages");
}

TEST(Mesh, AutoAndZeroSayNothing) {
  EXPECT_EQ(described({"engine.pipeline.stages=auto", kTensor + "=0", "mesh.tensor=2"}, 2).mesh,
            mesh_of(1, 1, 1, 2));
}

TEST(Mesh, ResolvesAgainForOtherRanks) {
  RunConfig config = described({kTensor + "=2"}, 8);
  resolve(config, on_ranks(4));
  EXPECT_EQ(config.mesh, mesh_of(2, 1, 1, 2));
}

TEST(Mesh, ContradictionsShowBothPlaces) {
  const std::string text = with_engine(
      "  train_batch_size: 32\n  sequence_parallel_size: 4\nmesh: {sequence: 2, data: 2}\n");
  EXPECT_EQ(refusal([&] { described({}, 8, text); }),
            "invalid configuration: run.yaml:6: `engine.sequence_parallel_size` is 4, but "
            "`mesh.sequence` is 2 (run.yaml:7); they mean the same, say it once");
  EXPECT_THAT(refusal_of(text), AllOf(StartsWith("invalid configuration: "),
                                      HasSubstr("but `mesh.sequence` is 2 (run.yaml:7)")));
  for (const auto& [first, second] : std::vector<std::pair<std::string, std::string>>{
           {"mesh.data=1", "engine.data_parallel_size=2"},
           {"mesh.pipeline=1", "engine.pipeline.stages=2"},
           {"mesh.sequence=1", "engine.sequence_parallel_size=2"},
           {"mesh.tensor=2", "engine.tensor_parallel.tp.tp_size=1"},
           {kTensor + "=1", "engine.tensor_parallel.tp.tp_size=2"}})
    EXPECT_THAT(
        refusal([&] {
          described({first, second});
        }),
        AllOf(HasSubstr("they mean the same"), HasSubstr(fmt::format("`{}` is", key_of(first))),
              HasSubstr(fmt::format("`{}` is", key_of(second)))))
        << first << " " << second;
}

TEST(Mesh, SizesThatDoNotFitTheRanksNameTheNearest) {
  EXPECT_EQ(refusal([] { described({"mesh.tensor=3"}, 8); }),
            "invalid configuration: --set: the mesh pipeline 1 x sequence 1 x tensor 3 = 3 does "
            "not divide the 8 ranks, so nothing whole is left for data. Nearest for 8 ranks: data "
            "2 x tensor 4; data 4 x tensor 2; tensor 8. As it is, the mesh takes 6 or 9 ranks");
  EXPECT_THAT(refusal([] {
                described({"mesh.data=4", "engine.sequence_parallel_size=3"}, 8);
              }),
              AllOf(HasSubstr("pipeline 1 x data 4 x sequence 3 x tensor 1 has 12 places"),
                    HasSubstr("there are 8 ranks")));
}

TEST(Mesh, EveryAxisIsAvailable) {
  EXPECT_EQ(described({"mesh.tensor=2", "mesh.sequence=2", "mesh.pipeline=2"}, 8).mesh,
            mesh_of(1, 2, 2, 2));
  EXPECT_EQ(refusal_of(with_engine("  train_batch_size: 32\n"), {kTensor + "=2"}), "");
  EXPECT_EQ(refusal_of(with_engine("  train_batch_size: 32\n  sequence_parallel_size: 2\n")), "");
  EXPECT_EQ(refusal_of(with_engine("  train_batch_size: 32\n  pipeline: {stages: 2}\n")), "");
  EXPECT_THAT(refusal([] { described({"mesh.expert=2"}); }), StartsWith("not supported: --set: "));
  EXPECT_THAT(refusal([] { described({"mesh.tensor=0"}); }),
              StartsWith("invalid configuration: --set: `mesh.tensor` is 0; it must be"));
}

TEST(Pipeline, PartitionIsSaidOnce) {
  EXPECT_EQ(described({}).pipeline.partition, "parameters");
  EXPECT_EQ(described({"pipeline.partition=[3, 4]"}).pipeline.partition, "3,4");
  EXPECT_EQ(described({"engine.pipeline.partition=best"}).pipeline.partition, "parameters");
  const RunConfig theirs = described({"engine.pipeline.partition='type:^h'"});
  EXPECT_EQ(theirs.pipeline.partition, "type:^h");
  EXPECT_EQ(described({}, 1, to_yaml(theirs)).pipeline.partition, "type:^h");
  EXPECT_THAT(refusal([] {
                described({"pipeline.partition=uniform", "engine.pipeline.partition=parameters"});
              }),
              AllOf(HasSubstr("`engine.pipeline.partition` is \"parameters\""),
                    HasSubstr("`pipeline.partition` is \"uniform\""), HasSubstr("say it once")));
  EXPECT_THAT(refusal([] { described({"pipeline.schedule=1b1f"}); }), HasSubstr("1f1b"));
}

TEST(Mesh, WrittenSizesRepeatTheMesh) {
  const RunConfig first =
      described({"mesh.pipeline=2", kTensor + "=2", "engine.train_micro_batch_size_per_gpu=4"}, 8);
  const std::string yaml = to_yaml(first);
  const RunConfig second = described({}, 8, yaml);
  EXPECT_EQ(first.mesh, second.mesh);
  EXPECT_EQ(to_yaml(second), yaml);
  EXPECT_EQ(described({}, 16, yaml).mesh, mesh_of(4, 2, 1, 2));
}

}  // namespace
}  // namespace tessera::config
