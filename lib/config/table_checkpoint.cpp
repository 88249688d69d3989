// SPDX-License-Identifier: Apache-2.0
// Keys of the `engine` section about checkpoints, elasticity and autotuning.
#include "config/table.hpp"

namespace tessera::config {
namespace {

void add_checkpoint(RowList& rows) {
  rows.section("engine.checkpoint");
  rows.no_effect(
      "tag_validation",
      one_of({"IGNORE", "WARN", "FAIL", "Ignore", "Warn", "Fail", "ignore", "warn", "fail"}),
      "\"WARN\"", "checkpoints are named by their step, equal on all ranks");
  rows.no_effect("load_universal", flag(), "false", "every checkpoint fits every number of ranks");
  rows.not_yet("use_node_local_storage", flag(), "false", "Checkpoints on each node's own disk.");
  rows.no_effect("parallel_write.pipeline_stage", flag(), "false", "checkpoints are one file");
  rows.no_effect("checkpoint_serialization", flag(), "true", "checkpoints are one HDF5 file");
  const char* const kWriter = "checkpoints are one HDF5 file, written by us";
  rows.no_effect("writer.type", one_of({"FAST", "PYTHON", "MOCK", "fast", "python", "mock"}),
                 "null", kWriter);
  rows.no_effect("writer.io_buffer_size", integer(1), "67108864", kWriter);
  rows.no_effect("writer.io_buffer_double", flag(), "true", kWriter);
  rows.no_effect("writer.show_statistics", flag(), "false", kWriter);
  rows.no_effect("writer.data_parallel", one_of({"replica", "socket", "machine"}), "null", kWriter);
  rows.no_effect("writer.decoupled", flag(), "false", kWriter);
  rows.no_effect("writer.io_multiplier", integer(1), "1", kWriter);
}

void add_services(RowList& rows) {
  rows.section("engine.nebula");
  rows.not_yet("enabled", flag(), "false", "Checkpoints through a cloud service.");
  rows.dependent("enable_nebula_load", flag(), "true");
  rows.dependent("nebula_load_path", any_text(), "null");
  rows.dependent("load_path", any_text(), "null");
  rows.dependent("persistent_storage_path", any_text(), "null");
  rows.dependent("persistent_time_interval", integer(0), "100");
  rows.dependent("num_of_version_in_retention", integer(1), "2");
  rows.section("engine");
  rows.not_yet("datastates_ckpt", any_map(), "{}", "Checkpoints through another engine.");
}

void add_elasticity(RowList& rows) {
  rows.section("engine.elasticity");
  rows.not_yet("enabled", flag(), "false", "Batch sizes that fit many rank counts.");
  rows.dependent("max_train_batch_size", integer(1), "2000");
  rows.dependent("micro_batch_sizes", numbers(), "[2, 4, 6]");
  rows.dependent("min_gpus", integer(1), "1");
  rows.dependent("max_gpus", integer(1), "10000");
  rows.dependent("num_gpus_per_node", integer(1), "1");
  rows.dependent("model_parallel_size", integer(1), "1");
  rows.dependent("min_time", integer(0), "0");
  rows.dependent("prefer_larger_batch", flag(), "true");
  rows.dependent("ignore_non_elastic_batch_info", flag(), "false");
  rows.dependent("version", any_number(), "0.2");
}

void add_autotuning(RowList& rows) {
  rows.section("engine.autotuning");
  rows.not_yet("enabled", flag(), "false", "Search for the fastest configuration.");
  rows.dependent("fast", flag(), "true");
  rows.dependent("metric", one_of({"throughput", "latency", "flops"}), "\"throughput\"");
  rows.dependent("start_profile_step", integer(0), "3");
  rows.dependent("end_profile_step", integer(1), "5");
  rows.dependent("tuner_type", one_of({"gridsearch", "random", "model_based"}), "\"gridsearch\"");
  rows.dependent("tuner_early_stopping", integer(1), "5");
  rows.dependent("tuner_num_trials", integer(1), "50");
  rows.dependent("results_dir", any_text(), "\"autotuning_results\"");
  rows.dependent("exps_dir", any_text(), "\"autotuning_exps\"");
  rows.dependent("overwrite", flag(), "true");
  rows.dependent("arg_mappings", any_map(), "null");
  rows.dependent("max_train_batch_size", integer(1), "null");
  rows.dependent("min_train_batch_size", integer(1), "1");
  rows.dependent("max_train_micro_batch_size_per_gpu", integer(1), "1024");
  rows.dependent("min_train_micro_batch_size_per_gpu", integer(1), "1");
  rows.dependent("num_tuning_micro_batch_sizes", integer(1), "3");
  rows.dependent("mp_size", integer(1), "1");
  rows.dependent("model_info", any_map(), "null");
}

}  // namespace

void add_checkpoint_rows(RowList& rows) {
  add_checkpoint(rows);
  add_services(rows);
  add_elasticity(rows);
  add_autotuning(rows);
}

}  // namespace tessera::config
