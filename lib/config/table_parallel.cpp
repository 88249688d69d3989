// SPDX-License-Identifier: Apache-2.0
// Keys of the `engine` section about tensor and expert parallelism, compilation and hybrid use.
#include "config/table.hpp"

namespace tessera::config {
namespace {

void add_tensor_parallel(RowList& rows) {
  rows.section("engine.tensor_parallel");
  const char* const kOwnSplit = "each model here knows how its layers are split";
  rows.supported("autotp_size", integer(0, 1e9), "null", "As mesh.tensor; 0 says nothing.");
  rows.no_effect("dtype", any_text(), "\"fp16\"", "the run's type decides");
  rows.no_effect("tp_overlap_comm", flag(), "false", "hides messages of PyTorch's modules");
  rows.supported("tp.tp_size", integer(1, 1e9), "null", "As mesh.tensor.");
  rows.no_effect("tp.tp_grain_size", integer(1), "1", kOwnSplit);
  rows.no_effect("partition_config.use_default_specs", flag(), "null", kOwnSplit);
  rows.no_effect("partition_config.layer_specs", any_list(), "null", kOwnSplit);
  rows.no_effect("preset_model",
                 one_of({"llama", "bloom", "chatglm", "mixtral", "deepseek_v2", "qwen2", "phi3"}),
                 "null", kOwnSplit);
  rows.no_effect("injection_policy_tuple", any_list(), "null", kOwnSplit);
  rows.no_effect("keep_module_on_host", flag(), "false",
                 "parameters are loaded straight into their slices");
  rows.no_effect("replace_with_kernel_inject", flag(), "false", "there are no other kernels");
}

void add_expert_parallel(RowList& rows) {
  rows.section("engine.expert_parallel");
  rows.not_yet("enabled", flag(), "false", "Experts on different ranks.");
  rows.dependent("autoep_size", integer(1), "1");
  rows.dependent("expert_tensor_parallel_size", integer(1), "1");
  rows.dependent("preset_model",
                 one_of({"mixtral", "qwen3_moe", "qwen3_5_moe", "deepseek_v2", "deepseek_v3"}),
                 "null");
  rows.dependent("*", Type{}, "null", "Name patterns and gate options.");
}

void add_compile(RowList& rows) {
  rows.section("engine.compile");
  rows.not_yet("deepcompile", flag(), "false", "Compiler passes of PyTorch.");
  rows.dependent("free_activation", flag(), "false");
  rows.dependent("free_activation_threshold", integer(0), "10485760");
  rows.dependent("offload_activation", flag(), "false");
  rows.dependent("offload_activation_pin_memory", flag(), "true");
  rows.dependent("offload_opt_states", flag(), "false");
  rows.dependent("double_buffer", flag(), "true");
  rows.dependent("symmetric_memory", flag(), "false");
  rows.dependent("offload_parameters", flag(), "false");
  for (const char* key :
       {"sync_before_reduce", "sync_after_reduce", "sync_before_allgather", "sync_after_allgather"})
    rows.dependent(key, flag(), "false");
  rows.dependent("keep_int_input_tensors", flag(), "true");
  rows.dependent("keep_all_input_tensors", flag(), "false");
  rows.dependent("debug_log", flag(), "false");
  rows.dependent("passes", texts(), "null");
}

void add_hybrid(RowList& rows) {
  rows.section("engine.hybrid_engine");
  rows.not_yet("enabled", flag(), "false", "Generation inside training.");
  rows.dependent("max_out_tokens", integer(1), "512");
  rows.dependent("inference_tp_size", integer(1), "1");
  rows.dependent("release_inference_cache", flag(), "false");
  rows.dependent("pin_parameters", flag(), "true");
  rows.dependent("tp_gather_partition_size", integer(1), "8");
  rows.dependent("enable_cuda_graph", flag(), "false");
}

}  // namespace

void add_parallel_rows(RowList& rows) {
  add_tensor_parallel(rows);
  add_expert_parallel(rows);
  add_compile(rows);
  add_hybrid(rows);
}

}  // namespace tessera::config
