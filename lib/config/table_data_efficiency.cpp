// SPDX-License-Identifier: Apache-2.0
// Keys of the `engine` section about curricula and data sampling.
#include <string>

#include "config/table.hpp"

namespace tessera::config {
namespace {

void add_schedule(RowList& rows, const std::string& prefix) {
  rows.dependent(prefix + "schedule_type",
                 one_of({"fixed_linear", "fixed_root", "fixed_discrete", "custom"}), "null");
  rows.dependent(prefix + "schedule_config.total_curriculum_step", integer(1), "null");
  rows.dependent(prefix + "schedule_config.difficulty_step", integer(1), "null");
  rows.dependent(prefix + "schedule_config.root_degree", number_above(0), "null");
  rows.dependent(prefix + "schedule_config.difficulty", numbers(), "null");
  rows.dependent(prefix + "schedule_config.max_step", numbers(), "null");
}

void add_sampling(RowList& rows) {
  rows.section("engine.data_efficiency.data_sampling");
  rows.not_yet("enabled", flag(), "false", "Samples by difficulty.");
  rows.dependent("num_epochs", integer(1), "1000");
  rows.dependent("num_workers", integer(0), "0");
  rows.dependent("pin_memory", flag(), "false");
  rows.not_yet("curriculum_learning.enabled", flag(), "false", "Harder samples later.");
  rows.dependent("curriculum_learning.data_cluster_path", any_text(), "null");
  const std::string metric = "curriculum_learning.curriculum_metrics.*.";
  rows.dependent(metric + "index_to_sample_path", any_text(), "null");
  rows.dependent(metric + "index_to_metric_path", any_text(), "null");
  rows.dependent(metric + "difficulty_type", one_of({"value", "percentile"}), "null");
  rows.dependent(metric + "clustering_type", one_of({"schedule_based", "single_cluster"}), "null");
  rows.dependent(metric + "min_difficulty", any_number(), "null");
  rows.dependent(metric + "max_difficulty", any_number(), "null");
  add_schedule(rows, metric);
}

void add_dynamic_batching(RowList& rows) {
  rows.section("engine.data_efficiency.data_sampling.dynamic_batching");
  rows.not_yet("enabled", flag(), "false", "Batches of equal token counts.");
  rows.dependent("metrics_path", any_text(), "null");
  rows.dependent("lr_scaling_method", one_of({"linear", "sqrt", "none"}), "\"linear\"");
  rows.dependent("min_batch_size", integer(1), "1");
  rows.dependent("max_batch_size", integer(1), "null");
  rows.dependent("max_tokens", integer(1), "null");
  rows.dependent("sequence_picking_order", one_of({"dataloader", "random", "seqlen"}),
                 "\"dataloader\"");
  rows.dependent("verbose", flag(), "false");
}

void add_random_ltd(RowList& rows) {
  rows.section("engine.data_efficiency.data_routing");
  rows.not_yet("enabled", flag(), "false", "Middle layers see a part of the tokens.");
  rows.section("engine.data_efficiency.data_routing.random_ltd");
  rows.not_yet("enabled", flag(), "false", "Middle layers see a random part of the tokens.");
  rows.dependent("total_layer_num", integer(1), "null");
  rows.dependent("random_ltd_layer_num", integer(0), "null");
  rows.dependent("random_ltd_layer_id", numbers(), "null");
  rows.dependent("model_mask_name", any_text(), "null");
  rows.dependent("model_type", any_text(), "null");
  rows.dependent("hidden_state_order", any_text(), "null");
  rows.dependent("random_ltd_schedule.min_value", integer(1), "null");
  rows.dependent("random_ltd_schedule.max_value", integer(1), "null");
  rows.dependent("random_ltd_schedule.schedule_type", one_of({"fixed_linear"}), "null");
  rows.dependent("random_ltd_schedule.schedule_config.require_steps", integer(1), "null");
  rows.dependent("random_ltd_schedule.schedule_config.seq_per_step", integer(1), "null");
  rows.not_yet("layer_token_lr_schedule.enabled", flag(), "false",
               "Learning rate by tokens of each layer.");
  rows.dependent("layer_token_lr_schedule.*", Type{}, "null");
}

}  // namespace

void add_data_efficiency_rows(RowList& rows) {
  rows.section("engine.curriculum_learning");
  rows.not_yet("enabled", flag(), "false", "Longer sequences later (legacy form).");
  rows.dependent("curriculum_type", any_text(), "\"seqlen\"");
  rows.dependent("min_difficulty", integer(1), "null");
  rows.dependent("max_difficulty", integer(1), "null");
  add_schedule(rows, "");
  rows.section("engine.data_efficiency");
  rows.not_yet("enabled", flag(), "false", "Curricula and dropped tokens.");
  rows.dependent("seed", integer(0), "1234");
  add_sampling(rows);
  add_dynamic_batching(rows);
  add_random_ltd(rows);
}

}  // namespace tessera::config
