// SPDX-License-Identifier: Apache-2.0
// Keys that have no effect here, and keys that are not available yet.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/parse.hpp"
#include "config/support.hpp"
#include "config/table.hpp"
#include "config/walk.hpp"

namespace tessera::config {
namespace {

using namespace testing;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string refusal_of_engine(const std::string& engine) {
  return refusal_of(with_engine("  train_batch_size: 8\n  " + engine + "\n"));
}

TEST(Status, WhatIsNotAvailableYetIsRefusedOnlyWhenSwitchedOn) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"fp16: {enabled: true, fp16_master_weights_and_grads: true}",
       "fp16: {enabled: true, fp16_master_weights_and_grads: false}"},
      {"zero_optimization: {offload_optimizer: {device: cpu}}",
       "zero_optimization: {offload_optimizer: {device: none, pin_memory: true}}"},
      {"zero_optimization: {offload_param: {device: nvme, nvme_path: /x}}",
       "zero_optimization: {offload_param: null}"},
      {"zero_optimization: {cpu_offload: true}", "zero_optimization: {cpu_offload: false}"},
      {"zero_optimization: {zero_quantized_weights: true}",
       "zero_optimization: {zero_quantized_weights: false}"},
      {"zero_optimization: {zero_hpz_partition_size: 8}",
       "zero_optimization: {zero_hpz_partition_size: 1}"},
      {"zero_optimization: {mics_shard_size: 4}", "zero_optimization: {mics_shard_size: -1}"},
      {"zero_optimization: {zenflow: {topk_ratio: 0.1}}", "zero_optimization: {zenflow: {}}"},
      {"zero_optimization: {ignore_unused_parameters: false}",
       "zero_optimization: {ignore_unused_parameters: true}"},
      {"sparse_attention: {block: 16}", "sparse_attention: null"},
      {"gradient_allreduce_op: sum", "gradient_allreduce_op: mean"},
      {"tensorboard: {enabled: true, output_path: x}", "tensorboard: {enabled: false}"},
      {"flops_profiler: {enabled: true}", "flops_profiler: {enabled: false, profile_step: 1}"},
      {"curriculum_learning: {enabled: true}", "curriculum_learning: {enabled: false}"},
      {"elasticity: {enabled: true}", "elasticity: {enabled: false}"},
      {"quantize_training: {enabled: true}", "quantize_training: {}"},
      {"amp: {enabled: true, opt_level: O1}", "amp: {enabled: false, opt_level: O1}"},
      {"compile: {deepcompile: true}", "compile: {deepcompile: false}"},
      {"compression_training: {head_pruning: {shared_parameters: {enabled: true}}}",
       "compression_training: {head_pruning: {shared_parameters: {enabled: false}, "
       "different_groups: {g1: {params: {dense_ratio: 0.5}, modules: [a]}}}}"},
      {"optimizer: {type: Lamb}", "optimizer: {type: adam}"},
      {"optimizer: {params: {amsgrad: true}}", "optimizer: {params: {amsgrad: false}}"}};
  for (const auto& [on, off] : cases) {
    EXPECT_THAT(refusal_of_engine(on), StartsWith("not supported: run.yaml:6: ")) << on;
    EXPECT_THAT(refusal_of_engine(on), HasSubstr("not available yet")) << on;
    EXPECT_EQ(refusal_of_engine(off), "") << off;
  }
}

TEST(Status, MeshAxesSayWhatComesLater) {
  EXPECT_THAT(refusal_of(kRunFile, {"mesh.expert=2"}), StartsWith("not supported: --set: "));
}

TEST(Status, OtherArchitecturesAreNamedOnceAndNotKeyByKey) {
  EXPECT_EQ(refusal_of("model: {model_type: mixtral, rope_theta: 1}\ndata: {train: [x]}\n"
                       "run: {steps: 1}\n"),
            "not supported: run.yaml:1: `model.model_type` is \"mixtral\", which is not available "
            "yet; use gpt2 or llama");
  EXPECT_THAT(refusal_of("model: {model_type: gtp2}\n"), HasSubstr("did you mean 'gpt2'?"));
}

TEST(Status, FalseTypesAreWrongAlsoInWhatIsNotAvailable) {
  EXPECT_THAT(refusal_of_engine("fp16: {enabled: maybe}"), StartsWith("invalid configuration"));
  EXPECT_THAT(refusal_of_engine("fp16: {enabled: false, loss_scale: -1}"),
              HasSubstr("`engine.fp16.loss_scale` is -1; it must be a number ≥ 0"));
  EXPECT_THAT(refusal_of_engine("elasticity: {enabled: false, min_gpu: 1}"),
              HasSubstr("did you mean 'min_gpus'?"));
  EXPECT_THAT(refusal_of_engine("compression_training: {head_pruning: {different_groups: {g: "
                                "{modles: []}}}}"),
              HasSubstr("`engine.compression_training.head_pruning.different_groups.g.modles`; did "
                        "you mean 'modules'?"));
}

TEST(Status, KeysWithoutEffectAreSaidWithTheReason) {
  const RunConfig config =
      read(with_engine("  train_batch_size: 8\n  prescale_gradients: true\n"
                       "  optimizer: {type: Adam, params: {torch_adam: true}}\n"
                       "  fp16: {enabled: false, hysteresis: 4, loss_scale: 0}\n"));
  EXPECT_THAT(
      config.notices,
      ElementsAre(
          "run.yaml:6: `engine.prescale_gradients` has no effect here: gradients are "
          "summed in fp32 and rounded once",
          "run.yaml:7: `engine.optimizer.params.torch_adam` has no effect here: chooses an "
          "implementation inside PyTorch",
          "run.yaml:8: `engine.fp16.hysteresis` and its neighbours have no effect: fp16 is not "
          "enabled"));
}

/// What the table itself calls the default of a key must pass, whatever its status.
TEST(Status, EveryDefaultIsAccepted) {
  Problems problems;
  for (const Row& row : table()) {
    if (row.path == "model" || row.path.find('*') != std::string::npos) continue;
    check_value(row.path, row, parse_json(row.fallback, row.path), problems);
  }
  for (const auto* types : {&optimizer_types(), &scheduler_types()})
    for (const NamedType& type : *types)
      for (const Row& row : type.parameters)
        check_value(row.path, row, parse_json(row.fallback, row.path), problems);
  EXPECT_EQ(refusal([&] { problems.throw_if_any(); }), "");
}

}  // namespace
}  // namespace tessera::config
