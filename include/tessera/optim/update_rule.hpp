// SPDX-License-Identifier: Apache-2.0
// How an optimizer changes a flat slice of parameters: AdamW, Adam, SGD behind one interface.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tessera/base/dtype.hpp"
#include "tessera/device/stream.hpp"
#include "tessera/kernels/step_decision.hpp"

namespace tessera::optim {

/// What a configuration's `optimizer` section says; the defaults are DeepSpeed's.
struct UpdateOptions {
  /// AdamW, Adam or SGD, in any case of letters. Adam is decoupled like AdamW unless adam_w_mode is
  /// false, as in DeepSpeed.
  std::string type = "AdamW";
  double lr = 1e-3;
  double weight_decay = 0;
  // Adam and AdamW
  double beta1 = 0.9, beta2 = 0.999;
  double epsilon = 1e-8;
  bool adam_w_mode = true;
  bool bias_correction = true;
  // SGD
  double momentum = 0, dampening = 0;
  bool nesterov = false;
};

/// What a schedule and the count of updates give to a step.
struct StepNumbers {
  double lr = 0;
  std::optional<double> momentum{};  // a schedule's momentum (beta1); nullopt: the rule's own
  std::int64_t step = 1;             // 1 for the first update
};

/// One contiguous run of elements that share a learning rate and a weight decay. Cutting a run in
/// two changes no bit of the result.
struct Slice {
  void* parameter;               // fp32, or bf16 when `low` is set
  std::uint16_t* low = nullptr;  // the other half of a split master (kernels/split_master.hpp)
  fp16* rounded = nullptr;       // with fp32: takes the new value, rounded to nearest even
  const void* gradient;
  DType gradient_type;               // fp32, bf16 or fp16
  float gradient_scale = 1;          // multiplies every gradient first: clipping, loss scale
  std::span<float* const> states;    // one array per state name, in that order, zero before step 1
  std::int64_t count;                // elements of each array
  double lr;                         // of this step
  double weight_decay;               // of this run
  std::optional<double> momentum{};  // as in StepNumbers
  std::int64_t step;                 // as in StepNumbers
  /// In memory of the device: whether there is an update, its gradient_scale, and whether lr,
  /// momentum and step are those above or `after_skip`. nullptr: those above.
  const kernels::StepDecision* decision = nullptr;
  StepNumbers after_skip{};
};

class UpdateRule {
 public:
  virtual ~UpdateRule() = default;
  /// "AdamW", "Adam" or "SGD".
  virtual const std::string& name() const = 0;
  /// Names of the fp32 state arrays of a parameter, as checkpoints call them: {"exp_avg",
  /// "exp_avg_sq"}, {"momentum_buffer"} or {}.
  virtual const std::vector<std::string>& state_names() const = 0;
  /// Whether Slice::momentum has an effect. SGD keeps its own momentum, as under DeepSpeed, whose
  /// OneCycle leaves optimizers without betas alone.
  virtual bool takes_scheduled_momentum() const = 0;
  /// Updates the parameter and its states in one pass over memory. Errors: invalid_argument for a
  /// wrong number of states or step < 1.
  virtual void update(const Stream& stream, const Slice& slice) const = 0;
};

/// Errors: invalid_config naming the option, its value and its range; for an unknown type, the
/// known ones.
std::unique_ptr<UpdateRule> make_update_rule(const UpdateOptions& options);

}  // namespace tessera::optim
