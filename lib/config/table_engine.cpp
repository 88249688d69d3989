// SPDX-License-Identifier: Apache-2.0
// Top-level keys of the `engine` section, and other names of keys.
#include "config/table.hpp"

namespace tessera::config {
namespace {

void add_batch(RowList& rows) {
  rows.supported("train_batch_size", integer(1).or_auto(), "\"auto\"",
                 "Samples of an optimizer step over all ranks = train_micro_batch_size_per_gpu × "
                 "gradient_accumulation_steps × mesh.data. What is missing follows from the rest.");
  rows.supported("train_micro_batch_size_per_gpu", integer(1).or_auto(), "\"auto\"",
                 "Samples of one forward pass of one rank.");
  rows.supported("gradient_accumulation_steps", integer(1).or_auto(), "\"auto\"",
                 "Forward passes of a rank in an optimizer step.");
  rows.not_yet("managed_gradient_accumulation", flag(), "true",
               "false: the caller marks the last micro-batch.", "leave it at true");
}

void add_named_types(RowList& rows) {
  rows.supported("optimizer.type", any_text(), "\"AdamW\"",
                 "The update rule, in any case of letters; see the optimizers below.");
  rows.supported("optimizer.params", any_map(), "{}", "Its parameters; see the optimizers below.");
  rows.no_effect("optimizer.legacy_fusion", flag(), "false", "chooses a CUDA kernel");
  rows.supported("scheduler.type", any_text(), "\"constant\"",
                 "The learning-rate schedule; see the schedules below.");
  rows.supported("scheduler.params", any_map(), "{}", "Its parameters; see the schedules below.");
}

void add_gradients(RowList& rows) {
  rows.supported("gradient_clipping", number_from(0).or_auto(), "1.0",
                 "Largest global gradient norm; 0: no clipping.");
  rows.supported("communication_data_type", one_of({"fp32", "bf16", "fp16"}).or_auto(), "\"auto\"",
                 "Type to which gradients are rounded before they are sent and summed over ranks. "
                 "auto: the run's own. fp32 keeps what sums in 16 bits lose, for twice the bytes.");
  const char* const kNoOverflow = "gradients are summed in fp32 and rounded once";
  rows.no_effect("prescale_gradients", flag(), "false", kNoOverflow);
  rows.no_effect("gradient_predivide_factor", number_above(0), "1.0", kNoOverflow);
  rows.not_yet("gradient_allreduce_op", one_of({"mean", "sum", "MEAN", "SUM"}), "\"mean\"",
               "How gradients of the ranks combine.", "leave it at mean")
      .with_off({"\"MEAN\""});
  rows.not_yet("sparse_gradients", flag(), "false", "Send only the rows of embeddings that occur.");
  rows.no_effect("disable_allgather", flag(), "false", "a leftover that nothing reads");
}

void add_log_keys(RowList& rows) {
  rows.supported("steps_per_print", integer(1).or_auto(), "null",
                 "Steps between progress lines, where run.log_every does not say it.");
  rows.supported("wall_clock_breakdown", flag(), "false",
                 "The log shows where the time of a step goes.");
  rows.supported("log_level", one_of({"debug", "info", "warning", "error", "critical"}), "\"info\"",
                 "Least important lines that are printed; critical counts as error.");
  rows.no_effect("memory_breakdown", flag(), "false",
                 "memory by purpose is always counted; summary.json has it");
  rows.no_effect("dump_state", flag(), "false", "`tessera config` prints every value");
}

void add_rest(RowList& rows) {
  rows.no_effect("zero_allow_untested_optimizer", flag(), "false",
                 "every optimizer works with every stage");
  rows.no_effect("zero_force_ds_cpu_optimizer", flag(), "true", "there are no other optimizers");
  rows.no_effect("graph_harvesting", flag(), "false", "tunes CUDA graphs");
  rows.no_effect("dataloader_drop_last", flag(), "false",
                 "a batch that an epoch cannot fill takes the rest from the next");
  rows.no_effect("vocabulary_size", integer(1), "null", "the model and the tokenizer say it");
  rows.not_yet("use_data_before_expert_parallelism", flag(), "false", "Order of expert groups.");
  rows.supported("sequence_parallel_size", integer(1, 1e9), "null", "As mesh.sequence.");
  rows.supported("data_parallel_size", integer(1, 1e9).or_auto(), "null",
                 "As mesh.data, for configurations that come from DeepSpeed.");
  rows.no_effect("seq_parallel_communication_data_type", one_of({"fp32", "bf16", "fp16"}),
                 "\"fp32\"", "what attention exchanges travels in the run's type");
  rows.not_yet("use_node_local_storage", flag(), "false", "Checkpoints on each node's own disk.");
  rows.no_effect("load_universal_checkpoint", flag(), "false",
                 "every checkpoint fits every number of ranks");
  rows.not_yet("weight_quantization", any_map(), "{}", "Quantizes weights (legacy).");
  rows.not_yet("quantize_training", any_map(), "{}", "Quantization-aware training (legacy).");
}

}  // namespace

void add_engine_rows(RowList& rows) {
  rows.section("engine");
  add_batch(rows);
  add_named_types(rows);
  add_gradients(rows);
  add_log_keys(rows);
  add_rest(rows);
}

const std::map<std::string, std::string>& aliases() {
  static const std::map<std::string, std::string> names = [] {
    const std::string zero = "engine.zero_optimization.";
    std::map<std::string, std::string> map = {
        {"engine.bfloat16", "engine.bf16"},
        {zero + "prefetch_bucket_size", zero + "stage3_prefetch_bucket_size"},
        {zero + "stage3_gather_fp16_weights_on_model_save",
         zero + "stage3_gather_16bit_weights_on_model_save"},
        {"model.num_hidden_layers", "model.n_layer"},
        {"model.hidden_size", "model.n_embd"},
        {"model.num_attention_heads", "model.n_head"},
        {"model.max_position_embeddings", "model.n_positions"},
    };
    for (const char* key : {"param_persistence_threshold", "model_persistence_threshold",
                            "max_live_parameters", "max_reuse_distance",
                            "gather_16bit_weights_on_model_save", "module_granularity_threshold",
                            "use_all_reduce_for_fetch_params", "allgather_sequential"})
      map[zero + key] = zero + "stage3_" + key;
    return map;
  }();
  return names;
}

}  // namespace tessera::config
