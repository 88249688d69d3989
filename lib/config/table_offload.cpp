// SPDX-License-Identifier: Apache-2.0
// Keys of the `engine` section about memory beyond the device: offload, ZenFlow, asynchronous I/O.
#include "config/table.hpp"

namespace tessera::config {
namespace {

void add_offload_param(RowList& rows) {
  rows.section("engine.zero_optimization.offload_param");
  rows.not_yet("device", one_of({"none", "cpu", "nvme"}), "\"none\"",
               "Where ZeRO-3's parameters rest.",
               "leave it at none: on CPU ranks all is in host memory");
  rows.dependent("nvme_path", any_text(), "null");
  rows.dependent("buffer_count", integer(1), "5");
  rows.dependent("buffer_size", integer(1), "100000000");
  rows.dependent("max_in_cpu", integer(0), "1000000000");
  rows.dependent("pin_memory", flag(), "true");
}

void add_offload_optimizer(RowList& rows) {
  rows.section("engine.zero_optimization.offload_optimizer");
  rows.not_yet("device", one_of({"none", "cpu", "nvme"}), "\"none\"",
               "Where master weights and moments rest.",
               "leave it at none: on CPU ranks all is in host memory");
  rows.dependent("nvme_path", any_text(), "null");
  rows.dependent("buffer_count", integer(1), "4");
  rows.dependent("pin_memory", flag(), "true");
  rows.dependent("pipeline", flag(), "false");
  rows.dependent("pipeline_read", flag(), "false");
  rows.dependent("pipeline_write", flag(), "false");
  rows.dependent("fast_init", flag(), "false");
  rows.dependent("ratio", number_in(0, 1), "1.0");
  rows.dependent("super_offload", flag(), "false");
  rows.dependent("cpuadam_cores_perc", number_in(0, 1), "0.8");
}

void add_zenflow(RowList& rows) {
  rows.not_yet("zenflow", any_map(), "{}", "Updates of unimportant gradients beside training.");
  rows.section("engine.zero_optimization.zenflow");
  rows.dependent("topk_ratio", number_in(0, 1), "0.1");
  rows.dependent("select_strategy", one_of({"auto", "step", "epoch"}), "\"auto\"");
  rows.dependent("select_interval", integer(1).or_auto(), "\"auto\"");
  rows.dependent("update_interval", integer(1).or_auto(), "\"auto\"");
  rows.dependent("overlap_step", flag(), "false");
  rows.dependent("offload", flag(), "false");
  rows.dependent("auto_ratio", number_in(0, 1), "0.99");
  rows.dependent("full_warm_up_rounds", integer(0), "0");
  rows.dependent("pt_reserved_cores_perc", number_in(0, 1), "0.5");
}

void add_aio(RowList& rows) {
  rows.section("engine.aio");
  const char* const kReason = "there is no offload to disks yet that it could tune";
  rows.no_effect("block_size", integer(1), "1048576", kReason);
  rows.no_effect("queue_depth", integer(1), "8", kReason);
  rows.no_effect("intra_op_parallelism", integer(1), "1", kReason);
  rows.no_effect("thread_count", integer(1), "1", kReason);
  rows.no_effect("single_submit", flag(), "false", kReason);
  rows.no_effect("overlap_events", flag(), "true", kReason);
  rows.no_effect("use_gds", flag(), "false", kReason);
}

}  // namespace

void add_offload_rows(RowList& rows) {
  add_offload_param(rows);
  add_offload_optimizer(rows);
  rows.section("engine.zero_optimization");
  rows.not_yet("cpu_offload", flag(), "false", "Old form of offload_optimizer.");
  rows.not_yet("cpu_offload_param", flag(), "false", "Old form of offload_param.");
  rows.dependent("cpu_offload_use_pin_memory", flag(), "false");
  rows.dependent("cpu_offload_params", flag(), "false");
  add_zenflow(rows);
  add_aio(rows);
}

}  // namespace tessera::config
