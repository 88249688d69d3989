// SPDX-License-Identifier: Apache-2.0
// The table of keys: complete, without contradictions, and read by somebody.
#include "config/table.hpp"

#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/support.hpp"

namespace tessera::config {
namespace {

using namespace testing;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(Table, NoKeyStandsTwice) {
  std::set<std::string> paths;
  for (const Row& row : table()) EXPECT_TRUE(paths.insert(row.path).second) << row.path;
}

TEST(Table, EveryRowSaysWhatItMeansOrWhyItHasNoEffect) {
  for (const Row& row : table()) {
    const bool reason = row.status == Status::no_effect || !row.later.empty();
    const bool meaning = row.status == Status::supported || row.status == Status::not_yet;
    EXPECT_TRUE(!reason || !row.note.empty()) << row.path;
    EXPECT_TRUE(!meaning || !row.meaning.empty()) << row.path;
  }
}

TEST(Table, OtherNamesLeadToKnownKeysInTheSameSection) {
  for (const auto& [name, target] : aliases()) {
    // A model's key may be another type's own.
    const Row* own = find_row(name);
    EXPECT_TRUE(own == nullptr || !is_of_model(*own, kUsualModel)) << name;
    EXPECT_EQ(name.substr(0, name.rfind('.')), target.substr(0, target.rfind('.'))) << name;
    const Branch* at = &key_tree();
    for (const std::string& segment : split_path(target)) {
      at = at->find(segment);
      ASSERT_NE(at, nullptr) << target;
    }
  }
}

/// Keys of DeepSpeed's configuration, at least one of each section, so that none is forgotten.
const std::vector<std::string> kDeepSpeedKeys = {
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "managed_gradient_accumulation",
    "optimizer.type",
    "optimizer.params",
    "optimizer.legacy_fusion",
    "scheduler.type",
    "scheduler.params",
    "communication_data_type",
    "seq_parallel_communication_data_type",
    "prescale_gradients",
    "gradient_predivide_factor",
    "gradient_allreduce_op",
    "sparse_gradients",
    "gradient_clipping",
    "disable_allgather",
    "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer",
    "graph_harvesting",
    "steps_per_print",
    "wall_clock_breakdown",
    "memory_breakdown",
    "dump_state",
    "dataloader_drop_last",
    "vocabulary_size",
    "use_data_before_expert_parallelism",
    "sequence_parallel_size",
    "data_parallel_size",
    "use_node_local_storage",
    "log_level",
    "weight_quantization",
    "quantize_training",
    "fp16.enabled",
    "fp16.auto_cast",
    "fp16.loss_scale",
    "fp16.initial_scale_power",
    "fp16.loss_scale_window",
    "fp16.hysteresis",
    "fp16.consecutive_hysteresis",
    "fp16.min_loss_scale",
    "fp16.fp16_master_weights_and_grads",
    "bf16.enabled",
    "bf16.immediate_grad_update",
    "bf16.check_grad_overflow",
    "bf16.bf16_master_weights_and_grads",
    "bf16.bf16_optimizer_states",
    "amp.enabled",
    "torch_autocast.enabled",
    "torch_autocast.dtype",
    "torch_autocast.lower_precision_safe_modules",
    "data_types.grad_accum_dtype",
    "data_types.param_dtype",
    "data_types.buffer_dtype",
    "activation_checkpointing.partition_activations",
    "activation_checkpointing.cpu_checkpointing",
    "activation_checkpointing.contiguous_memory_optimization",
    "activation_checkpointing.number_checkpoints",
    "activation_checkpointing.synchronize_checkpoint_boundary",
    "activation_checkpointing.profile",
    "progressive_layer_drop.enabled",
    "progressive_layer_drop.theta",
    "progressive_layer_drop.gamma",
    "pipeline.stages",
    "pipeline.partition",
    "pipeline.seed_layers",
    "pipeline.activation_checkpoint_interval",
    "pipeline.pipe_partitioned",
    "pipeline.grad_partitioned",
    "pipeline.use_reentrant",
    "timers.throughput.enabled",
    "timers.throughput.synchronized",
    "flops_profiler.enabled",
    "comms_logger.enabled",
    "comms_logger.prof_ops",
    "tensorboard.enabled",
    "wandb.project",
    "csv_monitor.job_name",
    "comet.mode",
    "aio.block_size",
    "aio.use_gds",
    "nebula.enabled",
    "datastates_ckpt",
    "zero_optimization.stage",
    "zero_optimization.contiguous_gradients",
    "zero_optimization.reduce_scatter",
    "zero_optimization.reduce_bucket_size",
    "zero_optimization.use_multi_rank_bucket_allreduce",
    "zero_optimization.allgather_partitions",
    "zero_optimization.allgather_bucket_size",
    "zero_optimization.overlap_comm",
    "zero_optimization.load_from_fp32_weights",
    "zero_optimization.elastic_checkpoint",
    "zero_optimization.sub_group_size",
    "zero_optimization.cpu_offload",
    "zero_optimization.cpu_offload_param",
    "zero_optimization.cpu_offload_use_pin_memory",
    "zero_optimization.stage3_prefetch_bucket_size",
    "zero_optimization.stage3_param_persistence_threshold",
    "zero_optimization.stage3_model_persistence_threshold",
    "zero_optimization.stage3_max_live_parameters",
    "zero_optimization.stage3_max_reuse_distance",
    "zero_optimization.stage3_gather_16bit_weights_on_model_save",
    "zero_optimization.stage3_module_granularity_threshold",
    "zero_optimization.stage3_use_all_reduce_for_fetch_params",
    "zero_optimization.stage3_allgather_sequential",
    "zero_optimization.ignore_unused_parameters",
    "zero_optimization.legacy_stage1",
    "zero_optimization.round_robin_gradients",
    "zero_optimization.zero_hpz_partition_size",
    "zero_optimization.zero_quantized_weights",
    "zero_optimization.zero_quantized_nontrainable_weights",
    "zero_optimization.zero_quantized_gradients",
    "zero_optimization.zeropp_loco_param.err_beta",
    "zero_optimization.mics_shard_size",
    "zero_optimization.mics_hierarchical_params_gather",
    "zero_optimization.memory_efficient_linear",
    "zero_optimization.pipeline_loading_checkpoint",
    "zero_optimization.override_module_apply",
    "zero_optimization.log_trace_cache_warnings",
    "zero_optimization.enable_sanity_checks",
    "zero_optimization.save_muon_momentum_buffer_in_memory",
    "zero_optimization.leaf_module.classes",
    "zero_optimization.offload_param.buffer_size",
    "zero_optimization.offload_optimizer.ratio",
    "zero_optimization.zenflow.topk_ratio",
    "curriculum_learning.schedule_config.root_degree",
    "data_efficiency.seed",
    "data_efficiency.data_sampling.curriculum_learning.curriculum_metrics.x.difficulty_type",
    "data_efficiency.data_sampling.dynamic_batching.max_tokens",
    "data_efficiency.data_routing.random_ltd.random_ltd_schedule.schedule_config.seq_per_step",
    "checkpoint.tag_validation",
    "checkpoint.parallel_write.pipeline_stage",
    "checkpoint.writer.io_multiplier",
    "elasticity.version",
    "autotuning.model_info",
    "sparse_attention.num_sliding_window_blocks",
    "tensor_parallel.tp.tp_grain_size",
    "tensor_parallel.partition_config.layer_specs",
    "expert_parallel.autoep_size",
    "compile.passes",
    "hybrid_engine.enable_cuda_graph",
    "compression_training.layer_reduction.teacher_layer",
    "compression_training.weight_quantization.different_groups.g.params.start_bits",
    "compression_training.sparse_pruning.shared_parameters.excluded_modules"};

TEST(Table, KnowsDeepSpeedsKeys) {
  for (const std::string& path : kDeepSpeedKeys)
    EXPECT_NE(find_row("engine." + path), nullptr) << path;
}

/// A supported key that nothing reads would be silently ignored: changing it has to change the
/// configuration.
using Keys = std::vector<std::pair<std::string, std::string>>;

/// Each key changes the JSON of a model that begins like this. Returns their paths.
std::vector<std::string> expect_model_keys_to_matter(const std::string& model, const Keys& keys) {
  const auto json_with = [&](const std::string& more) {
    return read("model: {" + model + more + "}\ndata: {train: [a.txt]}\nrun: {steps: 10}\n")
        .model.json;
  };
  const std::string base = json_with("");
  EXPECT_THAT(base, Not(HasSubstr("\"n_layer\"")));
  std::vector<std::string> paths;
  for (const auto& [key, value] : keys) {
    EXPECT_NE(json_with(", " + key + ": " + value), base) << key;
    paths.push_back("model." + key);
  }
  return paths;
}

std::vector<std::string> expect_network_keys_to_matter() {
  auto paths = expect_model_keys_to_matter("model_type: mlp, layer_sizes: [2, 1]",
                                           Keys{{"activation", "tanh"},
                                                {"residual", "true"},
                                                {"normalization", "layer_norm"},
                                                {"layer_norm_eps", "0.1"},
                                                {"loss", "l1"},
                                                {"huber_delta", "7"},
                                                {"normalize_inputs", "true"},
                                                {"normalize_outputs", "true"}});
  paths.emplace_back("model.layer_sizes");
  return paths;
}

std::vector<std::string> expect_llama_keys_to_matter() {
  return expect_model_keys_to_matter("model_type: llama", Keys{{"num_hidden_layers", "2"},
                                                               {"hidden_size", "64"},
                                                               {"intermediate_size", "7"},
                                                               {"num_attention_heads", "2"},
                                                               {"num_key_value_heads", "4"},
                                                               {"head_dim", "8"},
                                                               {"max_position_embeddings", "7"},
                                                               {"hidden_act", "gelu"},
                                                               {"rms_norm_eps", "0.1"},
                                                               {"rope_theta", "7"},
                                                               {"rope_scaling", "{factor: 2}"},
                                                               {"rope_parameters", "{factor: 2}"},
                                                               {"attention_dropout", "0.5"},
                                                               {"attention_bias", "true"},
                                                               {"mlp_bias", "true"}});
}

TEST(Table, EverySupportedKeyChangesTheConfiguration) {
  const std::vector<std::pair<std::string, std::string>> changes = {
      {"device", "cpu"},
      {"data.train", "[z]"},
      {"data.validation", "0.5"},
      {"data.tokenizer", "t"},
      {"data.sequence_length", "16"},
      {"data.field", "f"},
      {"run.folder", "f"},
      {"run.steps", "7"},
      {"run.minutes", "7"},
      {"run.seed", "7"},
      {"run.recompute", "full"},
      {"run.recompute_every", "7"},
      {"engine.activation_checkpointing.partition_activations", "true"},
      {"engine.activation_checkpointing.cpu_checkpointing", "true"},
      {"run.tf32", "true"},
      {"run.attention", "own"},
      {"run.measure_products", "true"},
      {"run.threads", "7"},
      {"run.log_every", "7"},
      {"run.timeline", "steps 3-5"},
      {"run.checkpoint.every", "7"},
      {"run.checkpoint.keep", "7"},
      {"run.checkpoint.asynchronous", "true"},
      {"run.checkpoint.verify", "false"},
      {"run.checkpoint.on_error", "stop"},
      {"run.validate.every", "7"},
      {"run.validate.batches", "7"},
      {"mesh.data", "2"},
      {"mesh.tensor", "2"},
      {"mesh.sequence", "2"},
      {"mesh.sequence_attention", "ring"},
      {"mesh.sequence_parallel", "true"},
      {"mesh.pipeline", "2"},
      {"pipeline.schedule", "gpipe"},
      {"pipeline.chunks", "3"},
      {"pipeline.partition", "[1, 2]"},
      {"pipeline.gather", "micro_batch"},
      {"engine.pipeline.partition", "uniform"},
      {"comm.transport", "shm"},
      {"comm.device_transport", "mpi"},
      {"comm.nodes", "[[0]]"},
      {"comm.checked", "true"},
      {"comm.timeout_seconds", "7"},
      {"comm.reduce_every_micro_batch", "true"},
      {"engine.communication_data_type", "fp16"},
      {"model.n_layer", "7"},
      {"model.n_embd", "12"},
      {"model.n_head", "2"},
      {"model.n_positions", "512"},
      {"model.n_inner", "7"},
      {"model.vocab_size", "700"},
      {"model.activation_function", "gelu"},
      {"model.embd_pdrop", "0"},
      {"model.attn_pdrop", "0"},
      {"model.resid_pdrop", "0"},
      {"model.layer_norm_epsilon", "0.1"},
      {"model.initializer_range", "0.1"},
      {"model.tie_word_embeddings", "false"},
      {"model.scale_attn_weights", "false"},
      {"model.scale_attn_by_inverse_layer_idx", "true"},
      {"engine.train_batch_size", "64"},
      {"engine.train_micro_batch_size_per_gpu", "2"},
      {"engine.gradient_clipping", "7"},
      {"engine.steps_per_print", "7"},
      {"engine.wall_clock_breakdown", "true"},
      {"engine.log_level", "debug"},
      {"engine.data_parallel_size", "2"},
      {"engine.bf16.enabled", "false"},
      {"engine.zero_optimization.stage", "1"},
      {"engine.zero_optimization.reduce_bucket_size", "7"},
      {"engine.zero_optimization.allgather_bucket_size", "7"},
      {"engine.zero_optimization.stage3_prefetch_bucket_size", "7"},
      {"engine.zero_optimization.overlap_comm", "false"},
      {"engine.optimizer.type", "Adam"}};
  // Keys whose only other values are refused, and those that the tests of their rule cover.
  std::set<std::string> covered = {"model",
                                   "engine",
                                   "run.tokens",
                                   "run.epochs",
                                   "model.model_type",
                                   "engine.gradient_accumulation_steps",
                                   "engine.data_types.grad_accum_dtype",
                                   "engine.optimizer.params",
                                   "engine.scheduler.type",
                                   "engine.scheduler.params",
                                   "engine.sequence_parallel_size",
                                   "engine.pipeline.stages",
                                   "engine.tensor_parallel.autotp_size",
                                   "engine.tensor_parallel.tp.tp_size"};
  RunConfig base = read_example();
  resolve(base, Facts{});
  for (const auto& [path, value] : changes) {
    RunConfig changed = read_example({path + "=" + value});
    resolve(changed, Facts{});
    EXPECT_FALSE(changed == base) << path;
    covered.insert(path);
  }
  // Stage 3, which the example has, refuses graphs.
  const std::string stage = "engine.zero_optimization.stage=1";
  EXPECT_FALSE(read_example({stage, "run.cuda_graph=true"}) == read_example({stage}));
  covered.insert("run.cuda_graph");
  const std::vector<std::string> fp16 = {"engine.bf16.enabled=false", "engine.fp16.enabled=true"};
  RunConfig before = base;
  for (const auto& [key, value] :
       std::vector<std::pair<std::string, std::string>>{{"enabled", "true"},
                                                        {"loss_scale", "7"},
                                                        {"initial_scale_power", "7"},
                                                        {"loss_scale_window", "7"},
                                                        {"hysteresis", "7"},
                                                        {"consecutive_hysteresis", "true"},
                                                        {"min_loss_scale", "7"}}) {
    const std::string path = "engine.fp16." + key;
    RunConfig changed = read_example({fp16[0], fp16[1], path + "=" + value});
    resolve(changed, Facts{});
    EXPECT_FALSE(changed.engine == before.engine) << path;
    covered.insert(path);
    if (key == "enabled") before = changed;
  }
  for (const std::string& path : expect_network_keys_to_matter()) covered.insert(path);
  for (const std::string& path : expect_llama_keys_to_matter()) covered.insert(path);
  for (const Row& row : table())
    EXPECT_TRUE(row.status != Status::supported || covered.count(row.path)) << row.path;
}

TEST(Table, KeysBelongToTheirTypeOfModel) {
  EXPECT_THAT(refusal_of("model: {model_type: mlp, layer_sizes: [1, 1], n_layer: 2}\n"),
              HasSubstr("`model.n_layer` is of model_type gpt2, not of mlp"));
  EXPECT_THAT(refusal_of("model: {model_type: gpt2, residual: true}\n"),
              HasSubstr("`model.residual` is of model_type mlp, not of gpt2"));
  EXPECT_THAT(refusal_of("model: {model_type: llama, n_embd: 64}\n"),
              HasSubstr("`model.n_embd` is of model_type gpt2, not of llama"));
  EXPECT_THAT(refusal_of("model: {model_type: mlp, layer_sizes: [1, 1], vocab_size: 9}\n"),
              HasSubstr("`model.vocab_size` is of model_type gpt2 and llama, not of mlp"));
  EXPECT_THAT(refusal_of("model: {model_type: llama, num_attention_heads: 8, "
                         "num_key_value_heads: 3}\n"),
              HasSubstr("`model.num_key_value_heads` is 3, which does not divide "
                        "`model.num_attention_heads` 8"));
  EXPECT_THAT(refusal_of("model: {model_type: mlp}\n"),
              HasSubstr("`model.layer_sizes` is missing; for example"));
}

TEST(Table, EveryParameterOfATypeChangesTheConfiguration) {
  const std::map<std::string, std::string> changes = {{"lr", "7"},
                                                      {"betas", "[0.1, 0.2]"},
                                                      {"eps", "7"},
                                                      {"weight_decay", "7"},
                                                      {"decay_all", "true"},
                                                      {"no_decay_patterns", "[x]"},
                                                      {"adam_w_mode", "false"},
                                                      {"bias_correction", "false"},
                                                      {"momentum", "0.5"},
                                                      {"dampening", "0.5"}};
  for (const NamedType& type : optimizer_types()) {
    if (type.status != Status::supported) continue;
    for (const Row& row : type.parameters) {
      if (row.status != Status::supported || row.path == "nesterov") continue;
      const std::string set =
          "engine.optimizer={type: " + type.name + ", params: {" + row.path + ": ";
      EXPECT_FALSE(read_example({set + changes.at(row.path) + "}}"}) ==
                   read_example({set + row.fallback + "}}"}))
          << type.name << " " << row.path;
    }
  }
}

}  // namespace
}  // namespace tessera::config
