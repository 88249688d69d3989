// SPDX-License-Identifier: Apache-2.0
// The `engine` section of a run file (a DeepSpeed configuration) as plain values.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "tessera/base/dtype.hpp"

namespace tessera::config {

/// The three sizes of the batch triangle: train = micro × accumulation × data-parallel size.
/// Zero until resolve() ran.
struct Batch {
  std::int64_t train = 0;         ///< samples of one optimizer step over all ranks
  std::int64_t micro = 0;         ///< samples of one forward pass of one rank
  std::int64_t accumulation = 0;  ///< forward passes of one rank in an optimizer step
  bool operator==(const Batch&) const = default;
};

/// Solves train = micro × accumulation × data_size for what is missing, by DeepSpeed's rules: with
/// `train` alone accumulation is 1, with `micro` alone accumulation is 1. Throws invalid_config,
/// showing the three numbers, the data-parallel size and the rule, when a number is not positive,
/// when nothing whole fits, and when both `train` and `micro` are missing.
Batch resolve_batch(std::optional<std::int64_t> train, std::optional<std::int64_t> micro,
                    std::optional<std::int64_t> accumulation, std::int64_t data_size);

/// Every field is filled, from the file or by the default of the type; fields of other types stay
/// at 0.
struct OptimizerConfig {
  std::string type = "AdamW";  ///< "Adam", "AdamW" or "SGD"
  double lr = 0.001;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0;
  bool decoupled = true;  ///< Adam's `adam_w_mode`; false: weight decay joins the gradient (L2)
  bool bias_correction = true;  ///< Adam and AdamW
  double momentum = 0;          ///< SGD
  double dampening = 0;         ///< SGD
  bool nesterov = false;        ///< SGD
  bool decay_all = false;       ///< weight decay also on tensors of one dimension (biases, norms)
  /// Parameters whose whole name matches one of these never decay; `*` and `?` as in file names.
  std::vector<std::string> no_decay_patterns;
  bool operator==(const OptimizerConfig&) const = default;
};

using SchedulerParameter = std::variant<double, bool, std::string>;

struct SchedulerConfig {
  /// "constant", "LRRangeTest", "OneCycle", "WarmupLR", "WarmupDecayLR" or "WarmupCosineLR".
  std::string type = "constant";
  /// By DeepSpeed's name; every parameter of the type is there, defaults and "auto" filled in, but
  /// total_num_steps is missing while the length of the run is unknown (see Facts::sequences).
  /// A parameter whose default is "none" (OneCycle's second half) is absent.
  std::map<std::string, SchedulerParameter> params;

  /// Throw internal when the parameter is missing or of another type.
  double number(const std::string& name) const;
  bool flag(const std::string& name) const;
  const std::string& text(const std::string& name) const;
  bool has(const std::string& name) const { return params.count(name) > 0; }

  bool operator==(const SchedulerConfig&) const = default;
};

struct ZeroConfig {
  int stage = 0;  ///< 0..3
  /// Elements of a gradient bucket, of a gather of updated parameters, and gathered ahead in stage
  /// 3. They change no bit of a result; the defaults suit CPU caches and are smaller than
  /// DeepSpeed's.
  std::int64_t reduce_bucket_size = std::int64_t{1} << 23;
  std::int64_t allgather_bucket_size = std::int64_t{1} << 23;
  std::int64_t prefetch_bucket_size = std::int64_t{1} << 24;
  bool overlap_comm = true;
  bool operator==(const ZeroConfig&) const = default;
};

/// The `fp16` section, where it is enabled.
struct Fp16Config {
  double loss_scale = 0;  ///< 0: dynamic
  int initial_scale_power = 16;
  std::int64_t loss_scale_window = 1000;
  int hysteresis = 2;
  bool consecutive_hysteresis = false;
  double min_loss_scale = 1;
  bool operator==(const Fp16Config&) const = default;
};

struct EngineConfig {
  Batch batch;
  OptimizerConfig optimizer;
  SchedulerConfig scheduler;
  double gradient_clipping = 1.0;           ///< global norm; 0 disables
  DType dtype = DType::fp32;                ///< by `bf16.enabled` and `fp16.enabled`
  DType accumulation_dtype = DType::fp32;   ///< of sums over micro-batches: fp32, or dtype
  DType communication_dtype = DType::fp32;  ///< in which gradients are sent and summed
  std::optional<Fp16Config> fp16;           ///< in fp16 runs
  ZeroConfig zero;
  bool partition_activations = false;  ///< inputs of recomputed blocks, over tensor ranks
  bool cpu_checkpointing = false;      ///< inputs of recomputed blocks, in host memory
  bool wall_clock_breakdown = false;   ///< the log shows where the time of a step goes
  std::string log_level = "info";      ///< "debug", "info", "warning" or "error"
  bool operator==(const EngineConfig&) const = default;
};

}  // namespace tessera::config
