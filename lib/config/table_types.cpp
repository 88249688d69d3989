// SPDX-License-Identifier: Apache-2.0
// Parameters of each optimizer and each learning-rate schedule.
#include "config/table.hpp"

namespace tessera::config {
namespace {

NamedType make_type(std::string name, void (*add)(RowList&)) {
  NamedType type{std::move(name), Status::supported, "", {}};
  RowList rows(type.parameters);
  add(rows);
  return type;
}

NamedType later(std::string name, std::string note = "use AdamW, Adam or SGD") {
  return {std::move(name), Status::not_yet, std::move(note), {}};
}

void add_decay(RowList& rows) {
  rows.supported("weight_decay", number_from(0).or_auto(), "0", "Of each step, times lr.");
  rows.supported("decay_all", flag(), "false",
                 "Weight decay also on tensors of one dimension (biases, norms).");
  rows.supported("no_decay_patterns", texts(), "[]",
                 "Names of parameters that never decay; * and ? as in file names.");
}

void add_pytorch_switches(RowList& rows) {
  for (const char* key : {"torch_adam", "fused", "foreach", "capturable", "set_grad_none"})
    rows.no_effect(key, flag(), "false", "chooses an implementation inside PyTorch");
  rows.no_effect("differentiable", flag(), "false", "of PyTorch's autograd");
  rows.not_yet("maximize", flag(), "false", "Go up instead of down.");
  rows.not_yet("max_grad_norm", number_from(0), "0", "Clipping.", "use engine.gradient_clipping");
}

void add_rate(RowList& rows) {
  rows.supported("lr", number_from(0), "0.001", "Learning rate; a schedule changes it.").note =
      "auto cannot be filled in: nothing else in a run file says the learning rate";
}

void add_adam_parameters(RowList& rows) {
  add_rate(rows);
  rows.supported("betas", numbers().or_auto(), "[0.9, 0.999]",
                 "Two numbers in [0, 1): decay of the first and the second moment.");
  rows.supported("eps", number_above(0).or_auto(), "1e-08", "Added to the root.");
  add_decay(rows);
  rows.supported("bias_correction", flag(), "true", "Correct moments for their start at zero.");
  rows.not_yet("amsgrad", flag(), "false", "Largest second moment so far.");
  add_pytorch_switches(rows);
}

void add_adamw(RowList& rows) {
  add_adam_parameters(rows);
  rows.no_effect("adam_w_mode", flag(), "true",
                 "AdamW always decouples weight decay; Adam has the choice");
}

void add_adam(RowList& rows) {
  add_adam_parameters(rows);
  rows.supported("adam_w_mode", flag(), "true",
                 "Decoupled weight decay. false: it is added to the gradient (L2).");
}

void add_sgd(RowList& rows) {
  add_rate(rows);
  rows.supported("momentum", number_below(0, 1).or_auto(), "0", "Of past gradients.");
  rows.supported("dampening", number_in(0, 1), "0", "Share of a new gradient left out.");
  rows.supported("nesterov", flag(), "false", "Look ahead by one step of momentum.");
  add_decay(rows);
  add_pytorch_switches(rows);
}

/// DeepSpeed restores this from checkpoints, as we do.
void add_position(RowList& rows) {
  rows.no_effect("last_batch_iteration", integer(-1), "-1", "a resumed run knows its step");
}

void add_warmup_length(RowList& rows) {
  rows.supported("warmup_num_steps", integer(1).or_auto(), "1000",
                 "Steps of warm-up. auto: 1, as good as none.");
  rows.supported("warmup_type", one_of({"log", "linear"}), "\"log\"", "Form of the warm-up.");
  add_position(rows);
}

void add_warmup(RowList& rows) {
  rows.supported("warmup_min_lr", number_from(0).or_auto(), "0", "Rate at the start.");
  rows.supported("warmup_max_lr", number_from(0).or_auto(), "\"auto\"",
                 "Rate after the warm-up. auto: the optimizer's lr.");
  add_warmup_length(rows);
}

void add_total(RowList& rows) {
  rows.supported("total_num_steps", integer(1).or_auto(), "\"auto\"",
                 "Steps until the end of the decay. auto: the length of the run.");
}

void add_warmup_decay(RowList& rows) {
  add_total(rows);
  add_warmup(rows);
}

void add_warmup_cosine(RowList& rows) {
  add_total(rows);
  rows.supported("warmup_min_ratio", number_in(0, 1), "0", "Share of lr at the start.");
  rows.supported("cos_min_ratio", number_in(0, 1), "0.0001", "Share of lr at the end.");
  add_warmup_length(rows);
}

void add_range_test(RowList& rows) {
  rows.supported("lr_range_test_min_lr", number_above(0), "0.001", "Rate at the start.");
  rows.supported("lr_range_test_step_size", integer(1), "2000", "Steps between increases.");
  rows.supported("lr_range_test_step_rate", number_from(0), "1",
                 "Increase, as a share of the start.");
  rows.supported("lr_range_test_staircase", flag(), "false", "Increase in stairs.");
  add_position(rows);
}

void add_one_cycle(RowList& rows) {
  rows.supported("cycle_min_lr", number_from(0), "null", "Lowest rate of the cycle. Required.");
  rows.supported("cycle_max_lr", number_from(0), "null", "Highest rate of the cycle. Required.");
  rows.supported("decay_lr_rate", number_from(0), "0", "Decay of the rate after the cycle.");
  rows.supported("cycle_first_step_size", integer(1), "2000", "Steps up.");
  rows.supported("cycle_second_step_size", integer(1), "null", "Steps down. null: as up.");
  rows.supported("cycle_first_stair_count", integer(0), "0", "Stairs up; 0: a line.");
  rows.supported("cycle_second_stair_count", integer(0), "null", "Stairs down. null: as up.");
  rows.supported("decay_step_size", integer(0), "0", "Steps between decays; 0: none.");
  rows.supported("cycle_momentum", flag(), "true", "Momentum goes the other way.");
  rows.supported("cycle_min_mom", number_below(0, 1), "0.8", "Lowest momentum.");
  rows.supported("cycle_max_mom", number_below(0, 1), "0.9", "Highest momentum.");
  rows.supported("decay_mom_rate", number_from(0), "0", "Growth of momentum after the cycle.");
  add_position(rows);
}

}  // namespace

const std::vector<NamedType>& optimizer_types() {
  static const std::vector<NamedType> types = {
      make_type("AdamW", add_adamw),
      make_type("Adam", add_adam),
      make_type("SGD", add_sgd),
      later("CPUAdam", "use AdamW, which runs on the CPU here"),
      later("Adagrad"),
      later("CPUAdagrad"),
      later("Lamb"),
      later("Lion"),
      later("CPULion"),
      later("OneBitAdam"),
      later("ZeroOneAdam"),
      later("OneBitLamb"),
      later("Muon"),
      later("MuAdam"),
      later("MuAdamW"),
      later("MuSGD"),
      later("FusedAdam", "use AdamW"),
      later("DeepSpeedCPUAdam", "use AdamW"),
      later("Adamax"),
      later("Adadelta"),
      later("NAdam"),
      later("RAdam"),
      later("RMSprop"),
      later("Rprop"),
      later("ASGD"),
      later("Adafactor"),
      later("LBFGS"),
      later("SparseAdam")};
  return types;
}

const std::vector<NamedType>& scheduler_types() {
  static const std::vector<NamedType> types = {
      make_type("constant", [](RowList&) {}),       make_type("WarmupLR", add_warmup),
      make_type("WarmupDecayLR", add_warmup_decay), make_type("WarmupCosineLR", add_warmup_cosine),
      make_type("OneCycle", add_one_cycle),         make_type("LRRangeTest", add_range_test)};
  return types;
}

}  // namespace tessera::config
