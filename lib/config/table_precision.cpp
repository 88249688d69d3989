// SPDX-License-Identifier: Apache-2.0
// Keys of the `engine` section about number types.
#include "config/table.hpp"

namespace tessera::config {
namespace {

void add_fp16(RowList& rows) {
  rows.section("engine.fp16");
  rows.not_yet("enabled", flag().or_auto(), "false", "Training in fp16.",
               "use bf16: {enabled: true}, which needs no loss scale")
      .with_off({"\"auto\""});
  rows.dependent("auto_cast", flag().or_auto(), "false", "Cast inputs.");
  rows.dependent("loss_scale", number_from(0), "0", "0: dynamic.");
  rows.dependent("initial_scale_power", integer(0, 126), "16", "Initial scale 2^n.");
  rows.dependent("loss_scale_window", integer(1), "1000", "Clean steps before the scale doubles.");
  rows.dependent("hysteresis", integer(1), "2", "Overflows before the scale halves.");
  rows.dependent("consecutive_hysteresis", flag(), "false", "A clean step refills hysteresis.");
  rows.dependent("min_loss_scale", number_above(0), "1", "Smallest dynamic scale.");
  rows.dependent("fp16_master_weights_and_grads", flag(), "false", "No fp32 master.");
  // apex's way of naming the same things, which Hugging Face's examples still write.
  rows.dependent("opt_level", any_text().or_auto(), "null", "Of apex.");
}

void add_bf16(RowList& rows) {
  rows.section("engine.bf16");
  rows.supported("enabled", flag().or_auto(), "false",
                 "Parameters, activations and gradients in bf16, with an exact fp32 master. auto: "
                 "where the processor has bf16 instructions.");
  rows.no_effect("immediate_grad_update", flag(), "false",
                 "gradients are written to their bucket at once");
  rows.no_effect("check_grad_overflow", flag(), "true",
                 "a step with a gradient that is not finite is always skipped, on all ranks");
  rows.not_yet("bf16_master_weights_and_grads", flag(), "false", "No fp32 master.");
  rows.not_yet("bf16_optimizer_states", flag(), "false", "Moments in bf16.");
}

}  // namespace

void add_precision_rows(RowList& rows) {
  add_fp16(rows);
  add_bf16(rows);
  const char* const kInstead = "use bf16: {enabled: true}";
  rows.section("engine.amp");
  rows.not_yet("enabled", flag().or_auto(), "false", "Mixed precision by apex.", kInstead)
      .with_off({"\"auto\""});
  rows.dependent("*", Type{}, "null", "Arguments of apex.");
  rows.section("engine.torch_autocast");
  rows.not_yet("enabled", flag(), "false", "Mixed precision by PyTorch.", kInstead);
  rows.dependent("dtype", any_text(), "null");
  rows.dependent("lower_precision_safe_modules", texts(), "null");
  rows.section("engine.data_types");
  rows.supported("grad_accum_dtype", one_of({"fp32", "bf16", "fp16"}).or_auto(), "\"fp32\"",
                 "Type in which micro-batches accumulate.")
      .with_later({"\"bf16\"", "\"fp16\""}, "gradients accumulate in fp32");
  rows.no_effect("param_dtype", any_text(), "null", "bf16.enabled says it");
  rows.no_effect("buffer_dtype", any_text(), "null", "bf16.enabled says it");
}

}  // namespace tessera::config
