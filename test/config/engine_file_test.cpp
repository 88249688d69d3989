// SPDX-License-Identifier: Apache-2.0
// DeepSpeed configurations as people have them: in a file of their own, with Hugging Face's autos.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/support.hpp"

namespace tessera::config {
namespace {

using namespace testing;
using ::testing::Contains;
using ::testing::Each;
using ::testing::HasSubstr;

// As the documentation of Hugging Face's Trainer has it, for ZeRO-3.
const std::string kHuggingFace = R"({
  "fp16": {
    "enabled": "auto", "loss_scale": 0, "loss_scale_window": 1000, "initial_scale_power": 16,
    "hysteresis": 2, "min_loss_scale": 1
  },
  "bf16": {"enabled": "auto"},
  "optimizer": {
    "type": "AdamW",
    "params": {"lr": 5e-5, "betas": "auto", "eps": "auto", "weight_decay": "auto"}
  },
  "scheduler": {
    "type": "WarmupDecayLR",
    "params": {"total_num_steps": "auto", "warmup_min_lr": "auto", "warmup_max_lr": "auto",
               "warmup_num_steps": "auto"}
  },
  "zero_optimization": {
    "stage": 3,
    "offload_optimizer": {"device": "none", "pin_memory": true},
    "offload_param": {"device": "none", "pin_memory": true},
    "overlap_comm": true,
    "contiguous_gradients": true,
    "sub_group_size": 1e9,
    "reduce_bucket_size": "auto",
    "stage3_prefetch_bucket_size": "auto",
    "stage3_param_persistence_threshold": "auto",
    "stage3_max_live_parameters": 1e9,
    "stage3_max_reuse_distance": 1e9,
    "stage3_gather_16bit_weights_on_model_save": true
  },
  "gradient_accumulation_steps": "auto",
  "gradient_clipping": "auto",
  "steps_per_print": 2000,
  "train_batch_size": "auto",
  "train_micro_batch_size_per_gpu": 2,
  "wall_clock_breakdown": false
}
)";

/// A folder that goes away with the test.
class EngineFile : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() /
              ("tessera-config-" +
               std::string(::testing::UnitTest::GetInstance()->current_test_info()->name()) +
               std::to_string(::getpid()));
    std::filesystem::create_directories(folder_ / "sub");
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string write(const std::string& name, const std::string& text) {
    const std::filesystem::path path = folder_ / name;
    std::ofstream(path) << text;
    return path.string();
  }

  std::filesystem::path folder_;
};

TEST_F(EngineFile, HuggingFacesConfigurationIsFilledFromTheRun) {
  write("sub/ds_config.json", kHuggingFace);
  const std::string path =
      write("run.yaml",
            "model: m\ndata: {train: [a.txt]}\nrun: {steps: 40}\nengine: sub/ds_config.json\n");
  RunConfig config = read_run_file(path);
  Facts facts = on_ranks(4);
  facts.bf16_instructions = true;
  resolve(config, facts);
  EXPECT_EQ(config.engine.batch, (Batch{8, 2, 1}));
  EXPECT_EQ(config.engine.dtype, DType::bf16);
  EXPECT_EQ(config.engine.optimizer.lr, 5e-5);
  EXPECT_EQ(config.engine.optimizer.beta2, 0.999);
  EXPECT_EQ(config.engine.optimizer.weight_decay, 0);
  EXPECT_EQ(config.engine.gradient_clipping, 1.0);
  EXPECT_EQ(config.engine.scheduler.number("total_num_steps"), 40);
  EXPECT_EQ(config.engine.scheduler.number("warmup_min_lr"), 0);
  EXPECT_EQ(config.engine.scheduler.number("warmup_max_lr"), 5e-5);
  EXPECT_EQ(config.engine.scheduler.number("warmup_num_steps"), 1);
  EXPECT_EQ(config.engine.zero.stage, 3);
  EXPECT_EQ(config.engine.zero.reduce_bucket_size, ZeroConfig{}.reduce_bucket_size);
  EXPECT_EQ(config.run.log_every, 2000);
  facts.bf16_instructions = false;
  resolve(config, facts);
  EXPECT_EQ(config.engine.dtype, DType::fp32);
}

TEST_F(EngineFile, EachKeyWithoutEffectGivesALineWithTheReason) {
  const RunConfig config = read("model: m\ndata: {train: [a.txt]}\nrun: {steps: 40}\nengine: " +
                                write("ds_config.json", kHuggingFace) + "\n");
  EXPECT_THAT(config.notices,
              Contains(HasSubstr("ds_config.json:22: `engine.zero_optimization.sub_group_size` has "
                                 "no effect here: the update walks the model unit by unit")));
  EXPECT_THAT(config.notices, Each(HasSubstr("ds_config.json:")));
}

TEST_F(EngineFile, ErrorsInItNameItsLines) {
  std::string text = kHuggingFace;
  text.replace(text.find("sub_group_size"), 14, "subgroup_size");
  const std::string path = write("ds_config.json", text);
  EXPECT_THAT(refusal_of("model: m\nengine: " + path + "\n"),
              HasSubstr("ds_config.json:22: unknown key `engine.zero_optimization.subgroup_size`; "
                        "did you mean 'sub_group_size'?"));
  write("ds_config.json", "{'a': 1}");
  EXPECT_THAT(refusal_of("engine: " + path + "\n"), HasSubstr("ds_config.json:1: not valid JSON"));
  write("ds_config.json", "[1]");
  EXPECT_THAT(refusal_of("engine: " + path + "\n"), HasSubstr("DeepSpeed configuration is a"));
}

TEST_F(EngineFile, OverridesReachIntoIt) {
  const std::string path = write("ds_config.json", kHuggingFace);
  const std::string run = "model: m\ndata: {train: [a.txt]}\nrun: {steps: 40}\n";
  RunConfig config = read(run, {"engine.zero_optimization.stage=1", "engine=" + path});
  EXPECT_EQ(config.engine.zero.stage, 1);
  EXPECT_EQ(config.engine.optimizer.lr, 5e-5);
}

TEST_F(EngineFile, ABareConfigurationIsCheckedAlone) {
  ReadOptions options;
  options.allow_bare_engine = true;
  options.set = {"zero_optimization.stage=2", "engine.gradient_clipping=0.5"};
  RunConfig config = read_run_file(write("ds_config.json", kHuggingFace), options);
  resolve(config, Facts{});
  EXPECT_TRUE(config.bare_engine);
  EXPECT_EQ(config.engine.zero.stage, 2);
  EXPECT_EQ(config.engine.gradient_clipping, 0.5);
  EXPECT_EQ(config.engine.batch, (Batch{2, 2, 1}));
  EXPECT_FALSE(config.engine.scheduler.has("total_num_steps"));
  for (const Entry& entry : config.entries)
    EXPECT_TRUE(entry.path.starts_with("engine.") || entry.path.starts_with("mesh.")) << entry.path;
}

}  // namespace
}  // namespace tessera::config
