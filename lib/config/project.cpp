// SPDX-License-Identifier: Apache-2.0
#include "config/project.hpp"

#include <fmt/format.h>

#include "tessera/base/error.hpp"

#include "config/step_range.hpp"
#include "config/values.hpp"

namespace tessera::config {
namespace {

void project_model(Values& values, const std::vector<Entry>& entries, ModelSource& model) {
  model.folder = values.text("model");
  model.json.clear();
  if (!model.folder.empty()) return;
  for (const Entry& entry : entries) {
    if (!entry.path.starts_with("model.")) continue;
    model.json += fmt::format("{}{}: {}", model.json.empty() ? "{" : ", ",
                              json_string(entry.path.substr(6)), entry.value);
  }
  if (!model.json.empty()) model.json += "}";
}

void project_data(Values& values, DataConfig& data) {
  data.train = values.texts("data.train");
  data.validation_fraction = values.number("data.validation").value_or(0);
  data.validation_files = values.texts("data.validation");
  data.tokenizer = values.text("data.tokenizer");
  data.sequence_length = values.integer("data.sequence_length").value_or(0);
  data.field = values.text("data.field");
}

Recompute parse_recompute(const std::string& word) {
  for (const Recompute one : {Recompute::selective, Recompute::full})
    if (word == to_string(one)) return one;
  return Recompute::none;
}

void project_run(Values& values, RunSection& run) {
  run.folder = values.text("run.folder");
  run.steps = values.integer("run.steps");
  run.tokens = values.integer("run.tokens");
  run.epochs = values.number("run.epochs");
  run.minutes = values.number("run.minutes");
  run.total_steps = values.integer("run.total_steps").value_or(run.steps.value_or(0));
  run.seed = static_cast<std::uint64_t>(values.integer("run.seed").value_or(0));
  run.checkpoint.every = values.integer("run.checkpoint.every").value_or(0);
  run.checkpoint.keep = static_cast<int>(values.integer("run.checkpoint.keep").value_or(1));
  run.checkpoint.asynchronous = values.flag("run.checkpoint.asynchronous");
  run.checkpoint.verify = values.flag("run.checkpoint.verify");
  const bool stop = values.text("run.checkpoint.on_error") == to_string(OnSaveError::stop);
  run.checkpoint.on_error = stop ? OnSaveError::stop : OnSaveError::go_on;
  run.validate.every = values.integer("run.validate.every").value_or(0);
  run.validate.batches = values.integer("run.validate.batches").value_or(0);
  run.recompute = parse_recompute(values.text("run.recompute"));
  run.recompute_every = static_cast<int>(values.integer("run.recompute_every").value_or(1));
  run.tf32 = values.flag("run.tf32");
  run.attention = values.text("run.attention");
  run.measure_products = values.flag("run.measure_products");
  run.cuda_graph = values.flag("run.cuda_graph");
  run.threads = static_cast<int>(values.integer("run.threads").value_or(0));
  run.timeline = parse_step_range(values.get("run.timeline"));
  run.log_every = values.integer("run.log_every").value_or(10);
}

void project_mesh(Values& values, MeshConfig& mesh) {
  const auto size = [&](const char* path, int open) {
    return static_cast<int>(values.integer(path).value_or(open));
  };
  mesh.data = size("mesh.data", 0);
  mesh.pipeline = size("mesh.pipeline", 1);
  mesh.sequence = size("mesh.sequence", 1);
  mesh.sequence_attention = values.text("mesh.sequence_attention");
  mesh.tensor = size("mesh.tensor", 1);
  mesh.sequence_parallel = values.flag("mesh.sequence_parallel");
}

void project_pipeline(Values& values, PipelineConfig& pipeline) {
  pipeline.schedule = values.text("pipeline.schedule");
  pipeline.chunks = static_cast<int>(values.integer("pipeline.chunks").value_or(0));
  pipeline.keep_gathered = values.text("pipeline.gather") == "step";
  const Node partition = values.get("pipeline.partition");
  pipeline.partition = partition.text == "auto" ? "parameters" : partition.text;
  if (!partition.is(Node::Kind::list)) return;
  pipeline.partition.clear();
  for (const Node& count : partition.items)
    pipeline.partition += fmt::format("{}{}", pipeline.partition.empty() ? "" : ",", count.integer);
}

void project_comm(Values& values, CommConfig& comm) {
  comm.transport = values.text("comm.transport");
  comm.device_transport = values.text("comm.device_transport");
  comm.nodes.reset();
  if (const Node nodes = values.get("comm.nodes"); nodes.is(Node::Kind::list)) {
    comm.nodes.emplace();
    for (const Node& node : nodes.items) {
      std::vector<int>& ranks = comm.nodes->emplace_back();
      for (const Node& rank : node.items) ranks.push_back(static_cast<int>(rank.integer));
    }
  }
  comm.checked = values.flag("comm.checked");
  comm.timeout_seconds = *values.number("comm.timeout_seconds");
  comm.reduce_every_micro_batch = values.flag("comm.reduce_every_micro_batch");
}

void project_optimizer(Values& values, OptimizerConfig& optimizer) {
  const auto number = [&](const char* key, double missing) {
    return values.number(fmt::format("engine.optimizer.params.{}", key)).value_or(missing);
  };
  const auto flag = [&](const char* key) {
    return values.flag(fmt::format("engine.optimizer.params.{}", key));
  };
  optimizer = OptimizerConfig{};
  optimizer.type = values.text("engine.optimizer.type");
  optimizer.lr = number("lr", 0);
  optimizer.weight_decay = number("weight_decay", 0);
  optimizer.decay_all = flag("decay_all");
  optimizer.no_decay_patterns = values.texts("engine.optimizer.params.no_decay_patterns");
  const Node betas = values.get("engine.optimizer.params.betas");
  const bool adam = betas.items.size() == 2;
  optimizer.beta1 = adam ? betas.items[0].number : 0;
  optimizer.beta2 = adam ? betas.items[1].number : 0;
  optimizer.eps = number("eps", 0);
  optimizer.decoupled = optimizer.type == "AdamW" || flag("adam_w_mode");
  optimizer.bias_correction = flag("bias_correction");
  optimizer.momentum = number("momentum", 0);
  optimizer.dampening = number("dampening", 0);
  optimizer.nesterov = flag("nesterov");
}

void project_scheduler(Values& values, const std::vector<Entry>& entries,
                       SchedulerConfig& scheduler) {
  const std::string prefix = "engine.scheduler.params.";
  scheduler.type = values.text("engine.scheduler.type");
  scheduler.params.clear();
  for (const Entry& entry : entries) {
    if (!entry.path.starts_with(prefix) || entry.path == prefix + "last_batch_iteration") continue;
    const Node value = values.get(entry.path);
    const std::string name = entry.path.substr(prefix.size());
    if (value.is(Node::Kind::number)) scheduler.params[name] = value.number;
    if (value.is(Node::Kind::boolean)) scheduler.params[name] = value.boolean;
    if (value.is(Node::Kind::text) && value.text != "auto") scheduler.params[name] = value.text;
  }
}

void project_zero(Values& values, ZeroConfig& zero) {
  const std::string prefix = "engine.zero_optimization.";
  zero.stage = static_cast<int>(*values.integer(prefix + "stage"));
  zero.reduce_bucket_size = *values.integer(prefix + "reduce_bucket_size");
  zero.allgather_bucket_size = *values.integer(prefix + "allgather_bucket_size");
  zero.prefetch_bucket_size = *values.integer(prefix + "stage3_prefetch_bucket_size");
  zero.overlap_comm = values.flag(prefix + "overlap_comm");
}

std::optional<Fp16Config> project_fp16(Values& values) {
  const std::string prefix = "engine.fp16.";
  if (!values.flag(prefix + "enabled")) return std::nullopt;
  Fp16Config fp16;
  fp16.loss_scale = *values.number(prefix + "loss_scale");
  fp16.initial_scale_power = static_cast<int>(*values.integer(prefix + "initial_scale_power"));
  fp16.loss_scale_window = *values.integer(prefix + "loss_scale_window");
  fp16.hysteresis = static_cast<int>(*values.integer(prefix + "hysteresis"));
  fp16.consecutive_hysteresis = values.flag(prefix + "consecutive_hysteresis");
  fp16.min_loss_scale = *values.number(prefix + "min_loss_scale");
  return fp16;
}

void project_engine(Values& values, EngineConfig& engine) {
  engine.batch.train = values.integer("engine.train_batch_size").value_or(0);
  engine.batch.micro = values.integer("engine.train_micro_batch_size_per_gpu").value_or(0);
  engine.batch.accumulation = values.integer("engine.gradient_accumulation_steps").value_or(0);
  engine.gradient_clipping = *values.number("engine.gradient_clipping");
  engine.dtype = run_dtype(values);
  engine.fp16 = project_fp16(values);
  engine.accumulation_dtype = parse_dtype(values.text("engine.data_types.grad_accum_dtype"));
  const std::string sent = values.text("engine.communication_data_type");
  engine.communication_dtype = sent == "auto" ? engine.dtype : parse_dtype(sent);
  engine.partition_activations =
      values.flag("engine.activation_checkpointing.partition_activations");
  engine.cpu_checkpointing = values.flag("engine.activation_checkpointing.cpu_checkpointing");
  engine.wall_clock_breakdown = values.flag("engine.wall_clock_breakdown");
  engine.log_level = values.text("engine.log_level");
  if (engine.log_level == "critical") engine.log_level = "error";
  project_zero(values, engine.zero);
}

}  // namespace

DType run_dtype(Values& values) {
  if (values.flag("engine.fp16.enabled")) return DType::fp16;
  return values.flag("engine.bf16.enabled") ? DType::bf16 : DType::fp32;
}

void project(RunConfig& config) {
  Values values(config.entries);
  project_engine(values, config.engine);
  project_optimizer(values, config.engine.optimizer);
  project_scheduler(values, config.entries, config.engine.scheduler);
  project_mesh(values, config.mesh);
  if (!config.bare_engine) project_pipeline(values, config.pipeline);
  if (config.bare_engine) return;
  project_model(values, config.entries, config.model);
  project_data(values, config.data);
  project_run(values, config.run);
  project_comm(values, config.comm);
  config.device = values.text("device");
}

}  // namespace tessera::config
