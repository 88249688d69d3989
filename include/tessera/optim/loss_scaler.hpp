// SPDX-License-Identifier: Apache-2.0
// Loss scaling for gradients of little range (fp16): static, or dynamic with hysteresis.
#pragma once

#include <cstdint>

namespace tessera::optim {

/// A configuration's fp16 section, with DeepSpeed's defaults.
struct LossScalerOptions {
  double static_scale = 0;  // `loss_scale`: 0 means dynamic
  int initial_scale_power = 16;
  std::int64_t window = 1000;           // `loss_scale_window`: clean steps before the scale doubles
  int hysteresis = 2;                   // overflows until the scale halves
  bool consecutive_hysteresis = false;  // a clean step refills the hysteresis
  double minimum = 1;                   // `min_loss_scale`
};

/// Everything that a resume needs.
struct LossScalerState {
  double scale = 1;
  std::int64_t iteration = 0;
  std::int64_t last_overflow = -1;
  int hysteresis = 1;  // overflows left until the scale halves
  bool operator==(const LossScalerState&) const = default;
};

/// The rule is that of DeepSpeed's ZeRO optimizers, with one difference. There the scale grows
/// before gradients are divided by it, so every growth halves one update. Here begin_step()
/// captures the scale that multiplies the loss, and backward_scale() keeps returning it, whatever
/// finish_step() does to the next one.
class LossScaler {
 public:
  /// Errors: invalid_config for a negative, infinite or NaN scale, a window, hysteresis or minimum
  /// below its range.
  explicit LossScaler(const LossScalerOptions& options);

  bool is_dynamic() const { return dynamic_; }
  /// Scale that the next step's loss will be multiplied by.
  double scale() const { return state_.scale; }
  /// Fixes the scale of the step that begins and returns it: multiply the loss's gradient by it.
  double begin_step();
  /// Scale of the step that began last: divide its gradients by it.
  double backward_scale() const { return backward_scale_; }
  /// To be called once a step, with what all ranks agreed on. An overflowed step is to be skipped.
  /// Errors: not_a_number on an overflow at the smallest dynamic scale, where no step can succeed.
  void finish_step(bool overflow);

  const LossScalerState& state() const { return state_; }
  void restore(const LossScalerState& state);

 private:
  void shrink();

  LossScalerOptions options_;
  bool dynamic_;
  LossScalerState state_;
  double backward_scale_ = 1;
};

}  // namespace tessera::optim
