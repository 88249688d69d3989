// SPDX-License-Identifier: Apache-2.0
// Static and dynamic loss scaling.
#include "tessera/optim/loss_scaler.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

namespace tessera::optim {
namespace {

void check(const LossScalerOptions& o) {
  TESSERA_CHECK(std::isfinite(o.static_scale) && o.static_scale >= 0, Code::invalid_config,
                fmt::format("loss_scale is {}, but has to be a positive number, or 0 for dynamic "
                            "scaling",
                            o.static_scale));
  if (o.static_scale > 0) return;
  TESSERA_CHECK(o.initial_scale_power >= -126 && o.initial_scale_power <= 127, Code::invalid_config,
                fmt::format("initial_scale_power is {}, but has to be in [-126, 127]",
                            o.initial_scale_power));
  TESSERA_CHECK(o.window > 0, Code::invalid_config,
                fmt::format("loss_scale_window is {}, but has to be positive", o.window));
  TESSERA_CHECK(o.hysteresis >= 1, Code::invalid_config,
                fmt::format("hysteresis is {}, but has to be at least 1", o.hysteresis));
  TESSERA_CHECK(std::isfinite(o.minimum) && o.minimum > 0, Code::invalid_config,
                fmt::format("min_loss_scale is {}, but has to be a positive number", o.minimum));
}

}  // namespace

LossScaler::LossScaler(const LossScalerOptions& options)
    : options_(options), dynamic_(options.static_scale == 0) {
  check(options);
  state_.scale = dynamic_ ? std::ldexp(1.0, options.initial_scale_power) : options.static_scale;
  state_.hysteresis = options.hysteresis;
  backward_scale_ = state_.scale;
}

double LossScaler::begin_step() {
  backward_scale_ = state_.scale;
  return backward_scale_;
}

void LossScaler::shrink() {
  TESSERA_CHECK(state_.scale > options_.minimum, Code::not_a_number,
                fmt::format("gradients overflow at the smallest loss scale {}: the training has "
                            "diverged. Lower the learning rate, or min_loss_scale",
                            state_.scale));
  state_.scale = std::max(state_.scale / 2, options_.minimum);
}

void LossScaler::finish_step(bool overflow) {
  if (dynamic_ && overflow) {
    if (state_.hysteresis == 1)
      shrink();
    else
      --state_.hysteresis;
    state_.last_overflow = state_.iteration;
  } else if (dynamic_) {
    if (options_.consecutive_hysteresis) state_.hysteresis = options_.hysteresis;
    const std::int64_t clean = state_.iteration - state_.last_overflow - 1;
    if (clean > 0 && clean % options_.window == 0) {
      state_.hysteresis = options_.hysteresis;
      state_.scale *= 2;
    }
  }
  ++state_.iteration;
}

void LossScaler::restore(const LossScalerState& state) {
  const bool possible = std::isfinite(state.scale) && state.scale > 0 && state.iteration >= 0 &&
                        state.last_overflow < state.iteration && state.last_overflow >= -1 &&
                        state.hysteresis >= 1;
  TESSERA_CHECK(possible, Code::invalid_argument,
                fmt::format("no loss scaler can be in the state scale {}, iteration {}, last "
                            "overflow {}, hysteresis {}; the checkpoint is damaged",
                            state.scale, state.iteration, state.last_overflow, state.hysteresis));
  state_ = state;
  // A static scale, and how many overflows are tolerated, are the configuration's to change.
  if (!dynamic_) state_.scale = options_.static_scale;
  state_.hysteresis = std::min(state_.hysteresis, options_.hysteresis);
  backward_scale_ = state_.scale;
}

}  // namespace tessera::optim
