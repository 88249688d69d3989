// SPDX-License-Identifier: Apache-2.0
// Keys of `engine.compression_training`.
#include "config/table.hpp"

namespace tessera::config {
namespace {

/// What every technique has: a switch, a start, and groups of modules.
void add_technique(RowList& rows, const std::string& name, const std::string& meaning) {
  rows.section("engine.compression_training." + name);
  rows.not_yet("shared_parameters.enabled", flag(), "false", meaning);
  rows.dependent("shared_parameters.schedule_offset", integer(0), "1000");
  rows.dependent("different_groups.*.modules", texts(), "null");
  rows.dependent("different_groups.*.related_modules", any_list(), "null");
}

void add_quantization(RowList& rows) {
  add_technique(rows, "weight_quantization", "Quantized weights.");
  rows.dependent("shared_parameters.quantizer_kernel", flag(), "false");
  rows.dependent("shared_parameters.quantize_groups", integer(1), "1");
  rows.dependent("shared_parameters.quantize_verbose", flag(), "false");
  rows.dependent("shared_parameters.quantization_type", one_of({"symmetric", "asymmetric"}),
                 "\"symmetric\"");
  rows.dependent("shared_parameters.rounding", one_of({"nearest", "stochastic"}), "\"nearest\"");
  rows.dependent("shared_parameters.quantize_weight_in_forward", flag(), "false");
  rows.dependent("shared_parameters.fp16_mixed_quantize.enabled", flag(), "false");
  rows.dependent("shared_parameters.fp16_mixed_quantize.quantize_change_ratio", number_in(0, 1),
                 "0.001");
  rows.dependent("different_groups.*.params.start_bits", integer(1, 64), "null");
  rows.dependent("different_groups.*.params.target_bits", integer(1, 64), "null");
  rows.dependent("different_groups.*.params.quantization_period", integer(1), "1");
  add_technique(rows, "activation_quantization", "Quantized activations.");
  rows.dependent("shared_parameters.quantization_type", one_of({"symmetric", "asymmetric"}),
                 "\"symmetric\"");
  rows.dependent("shared_parameters.range_calibration", one_of({"dynamic", "static"}),
                 "\"dynamic\"");
  rows.dependent("different_groups.*.params.bits", integer(1, 64), "null");
}

void add_pruning(RowList& rows) {
  add_technique(rows, "sparse_pruning", "Single weights set to zero.");
  rows.dependent("shared_parameters.method", one_of({"l1", "topk", "snip_momentum"}), "\"l1\"");
  rows.dependent("shared_parameters.schedule_offset_end", integer(0), "null");
  rows.dependent("shared_parameters.schedule_offset_stride", integer(1), "1");
  rows.dependent("shared_parameters.block_pattern", any_text(), "\"4x1\"");
  rows.dependent("shared_parameters.dense_ratio", number_in(0, 1), "0.1");
  rows.dependent("shared_parameters.excluded_modules", texts(), "[]");
  rows.dependent("different_groups.*.params.dense_ratio", number_in(0, 1), "null");
  for (const char* name : {"row_pruning", "channel_pruning"}) {
    add_technique(rows, name, "Whole rows or channels set to zero.");
    rows.dependent("shared_parameters.method", one_of({"l1", "topk"}), "\"l1\"");
    rows.dependent("different_groups.*.params.dense_ratio", number_in(0, 1), "null");
  }
  add_technique(rows, "head_pruning", "Whole attention heads set to zero.");
  rows.dependent("shared_parameters.method", one_of({"topk"}), "\"topk\"");
  rows.dependent("shared_parameters.num_heads", integer(1), "null");
  rows.dependent("different_groups.*.params.dense_ratio", number_in(0, 1), "null");
}

}  // namespace

void add_compression_rows(RowList& rows) {
  rows.section("engine.compression_training.layer_reduction");
  rows.not_yet("enabled", flag(), "false", "A smaller student from some of the layers.");
  rows.dependent("keep_number_layer", integer(1), "null");
  rows.dependent("module_name_prefix", any_text(), "null");
  rows.dependent("teacher_layer", numbers(), "null");
  rows.dependent("other_module_name", texts(), "null");
  add_quantization(rows);
  add_pruning(rows);
}

}  // namespace tessera::config
