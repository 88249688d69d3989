// SPDX-License-Identifier: Apache-2.0
// Keys of `engine.zero_optimization` without offload.
#include "config/table.hpp"

namespace tessera::config {
namespace {

void add_main(RowList& rows) {
  rows.supported("stage", integer(0, 3), "0",
                 "What is partitioned over data ranks: 1 optimizer states, 2 and gradients, 3 and "
                 "parameters.");
  rows.supported("reduce_bucket_size", integer(1).or_auto(), "8388608",
                 "Elements of a gradient bucket. Changes no bit of the result. DeepSpeed's default "
                 "is 5e8.");
  rows.supported("allgather_bucket_size", integer(1).or_auto(), "8388608",
                 "Elements of one gather of updated parameters. DeepSpeed's default is 5e8.");
  rows.supported("stage3_prefetch_bucket_size", integer(0).or_auto(), "16777216",
                 "Elements gathered ahead of their use in stage 3. DeepSpeed's default is 5e7.");
  rows.supported("overlap_comm", flag().or_auto(), "true",
                 "Reduce and gather while computing. Changes no bit of the result. DeepSpeed's "
                 "default is true in stage 3 only.");
}

void add_ignored(RowList& rows) {
  const char* const kFlat = "gradients and parameters always lie flat, one slice a rank";
  rows.no_effect("contiguous_gradients", flag().or_auto(), "true", kFlat);
  rows.no_effect("reduce_scatter", flag().or_auto(), "true",
                 "stages 1 to 3 always reduce to owners, stage 0 to all");
  rows.no_effect("use_multi_rank_bucket_allreduce", flag(), "true", kFlat);
  rows.no_effect("allgather_partitions", flag().or_auto(), "true", kFlat);
  rows.no_effect("round_robin_gradients", flag().or_auto(), "false", kFlat);
  rows.no_effect("load_from_fp32_weights", flag(), "true",
                 "a checkpoint always restores the exact fp32 master");
  rows.no_effect("elastic_checkpoint", flag(), "false",
                 "every checkpoint fits every number of ranks");
  rows.no_effect("pipeline_loading_checkpoint", flag(), "false",
                 "every rank reads its own part of a checkpoint");
  rows.no_effect("sub_group_size", integer(1).or_auto(), "1000000000",
                 "the update walks the model unit by unit");
  rows.no_effect("memory_efficient_linear", flag(), "true", "tunes a PyTorch layer");
  rows.no_effect("override_module_apply", flag(), "true", "patches a PyTorch class");
  rows.no_effect("log_trace_cache_warnings", flag(), "false",
                 "the order of units is known, there is no trace to record");
  rows.no_effect("enable_sanity_checks", flag(), "false", "comm.checked compares collectives");
}

void add_stage3(RowList& rows) {
  const char* const kUnit = "the unit of gathering is a block of the model";
  rows.no_effect("stage3_param_persistence_threshold", integer(0).or_auto(), "100000", kUnit);
  rows.no_effect("stage3_model_persistence_threshold", integer(0).or_auto(), "null", kUnit);
  rows.no_effect("stage3_max_live_parameters", integer(0).or_auto(), "1000000000", kUnit);
  rows.no_effect("stage3_max_reuse_distance", integer(0).or_auto(), "1000000000", kUnit);
  rows.no_effect("stage3_module_granularity_threshold", integer(0), "0", kUnit);
  rows.no_effect("stage3_gather_16bit_weights_on_model_save", flag().or_auto(), "false",
                 "`tessera convert` writes weights from any checkpoint");
  rows.no_effect("stage3_use_all_reduce_for_fetch_params", flag(), "false",
                 "units are gathered with one all-gather");
  rows.no_effect("stage3_allgather_sequential", flag(), "false",
                 "units are gathered one after the other");
  rows.no_effect("leaf_module.classes", texts(), "null", kUnit);
  rows.no_effect("leaf_module.names", texts(), "[]", kUnit);
  rows.no_effect("leaf_module.name_suffixes", texts(), "[]", kUnit);
}

void add_not_yet(RowList& rows) {
  rows.not_yet("ignore_unused_parameters", flag(), "true",
               "false: a parameter without a gradient is an error.",
               "leave it at true; unused parameters are named once in the log");
  rows.not_yet("legacy_stage1", flag(), "false", "An old implementation of stage 1.",
               "stage 1 needs no key");
  rows.not_yet("zero_hpz_partition_size", integer(1), "1",
               "ZeRO++: a second partition inside each node.", "leave it at 1");
  rows.not_yet("zero_quantized_weights", flag(), "false", "ZeRO++: gathers in int8.");
  rows.not_yet("zero_quantized_nontrainable_weights", flag(), "false",
               "ZeRO++: frozen weights in int8.");
  rows.not_yet("zero_quantized_gradients", flag(), "false", "ZeRO++: reductions in int4.");
  rows.dependent("zeropp_loco_param.err_beta", number_in(0, 1), "0.8", "Of quantized gradients.");
  rows.dependent("zeropp_loco_param.reset_T", integer(1), "1024", "Of quantized gradients.");
  rows.not_yet("mics_shard_size", integer(-1), "-1", "MiCS: ranks that share one partition.",
               "leave it at -1");
  rows.dependent("mics_hierarchical_params_gather", flag(), "false", "Of MiCS.");
  rows.dependent("save_muon_momentum_buffer_in_memory", flag(), "false", "Of Muon.");
}

}  // namespace

void add_zero_rows(RowList& rows) {
  rows.section("engine.zero_optimization");
  add_main(rows);
  add_ignored(rows);
  add_stage3(rows);
  add_not_yet(rows);
}

}  // namespace tessera::config
