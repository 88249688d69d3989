// SPDX-License-Identifier: Apache-2.0
// Keys of the `engine` section about number types.
#include "config/table.hpp"

namespace tessera::config {
namespace {

void add_fp16(RowList& rows) {
  constexpr double kMostHysteresis = 1 << 30;
  rows.section("engine.fp16");
  rows.supported("enabled", flag().or_auto(), "false",
                 "Parameters, activations and gradients in fp16, with an fp32 master and a scaled "
                 "loss. auto: false.");
  rows.no_effect("auto_cast", flag().or_auto(), "false", "the model's inputs are token ids");
  rows.supported("loss_scale", number_from(0), "0",
                 "What the loss is multiplied by before backward; 0: dynamic.");
  rows.supported("initial_scale_power", integer(0, 126), "16", "The first dynamic scale is 2^n.");
  rows.supported("loss_scale_window", integer(1), "1000",
                 "Steps without overflow before the scale doubles.");
  rows.supported("hysteresis", integer(1, kMostHysteresis), "2",
                 "Overflows until the scale halves. All but the first of them come back when the "
                 "scale doubles.");
  rows.supported("consecutive_hysteresis", flag(), "false",
                 "A step without overflow brings all of them back.");
  rows.supported("min_loss_scale", number_above(0), "1",
                 "Smallest dynamic scale; a run whose gradients overflow there ends.");
  rows.not_yet("fp16_master_weights_and_grads", flag(), "false", "No fp32 master.");
  rows.no_effect("opt_level", any_text().or_auto(), "null", "names a mode of apex");
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
  rows.supported(
      "grad_accum_dtype", one_of({"fp32", "bf16", "fp16"}).or_auto(), "\"fp32\"",
      "Type in which the gradients of micro-batches add up: fp32, or the run's own, which "
      "takes less memory and rounds every sum.");
  rows.no_effect("param_dtype", any_text(), "null", "bf16.enabled and fp16.enabled say it");
  rows.no_effect("buffer_dtype", any_text(), "null", "bf16.enabled and fp16.enabled say it");
}

}  // namespace tessera::config
