// SPDX-License-Identifier: Apache-2.0
// Keys of the `engine` section about timers, profilers and monitors.
#include "config/table.hpp"

namespace tessera::config {
namespace {

void add_profilers(RowList& rows) {
  rows.section("engine.timers.throughput");
  rows.no_effect("enabled", flag(), "true", "throughput is always measured");
  rows.no_effect("synchronized", flag(), "true", "a step ends when all ranks have ended it");
  rows.section("engine.flops_profiler");
  rows.not_yet("enabled", flag(), "false", "Operations of each module as a tree.",
               "summary.json has the model's operations and rate");
  rows.dependent("profile_step", integer(0), "1");
  rows.dependent("module_depth", integer(-1), "-1");
  rows.dependent("top_modules", integer(0), "1");
  rows.dependent("detailed", flag(), "true");
  rows.dependent("output_file", any_text(), "null");
  rows.dependent("recompute_fwd_factor", number_from(0), "0.0");
  rows.section("engine.comms_logger");
  const char* const kCounted = "bytes and messages are always counted; summary.json has them";
  for (const char* key : {"enabled", "verbose", "debug"})
    rows.no_effect(key, flag(), "false", kCounted);
  rows.no_effect("prof_all", flag(), "true", kCounted);
  rows.no_effect("prof_ops", texts(), "[]", kCounted);
}

void add_files(RowList& rows) {
  for (const char* name : {"tensorboard", "csv_monitor"}) {
    rows.section(std::string("engine.") + name);
    rows.not_yet("enabled", flag(), "false", "Writes metrics in another format.",
                 "metrics.jsonl has them");
    rows.dependent("output_path", any_text(), "\"\"");
    rows.dependent("job_name", any_text(), "\"DeepSpeedJobName\"");
  }
}

void add_services(RowList& rows) {
  rows.section("engine.wandb");
  rows.not_yet("enabled", flag(), "false", "Sends metrics to a service.", "metrics.jsonl has them");
  rows.dependent("group", any_text(), "null");
  rows.dependent("team", any_text(), "null");
  rows.dependent("project", any_text(), "\"deepspeed\"");
  rows.section("engine.comet");
  rows.not_yet("enabled", flag(), "false", "Sends metrics to a service.", "metrics.jsonl has them");
  rows.dependent("samples_log_interval", integer(1), "100");
  for (const char* key : {"project", "workspace", "api_key", "experiment_name", "experiment_key"})
    rows.dependent(key, any_text(), "null");
  rows.dependent("online", flag(), "null");
  rows.dependent("mode", any_text(), "null");
}

}  // namespace

void add_observability_rows(RowList& rows) {
  add_profilers(rows);
  add_files(rows);
  add_services(rows);
}

}  // namespace tessera::config
