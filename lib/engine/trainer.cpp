// SPDX-License-Identifier: Apache-2.0
#include "tessera/engine/trainer.hpp"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "tessera/autograd/profiler.hpp"
#include "tessera/base/error.hpp"
#include "tessera/base/file.hpp"
#include "tessera/base/log.hpp"
#include "tessera/base/number_format.hpp"
#include "tessera/base/timeline.hpp"
#include "tessera/base/timer.hpp"
#include "tessera/config/compare.hpp"
#include "tessera/config/reader.hpp"
#include "tessera/config/report.hpp"
#include "tessera/engine/engine.hpp"
#include "tessera/engine/memory_check.hpp"
#include "tessera/engine/options.hpp"
#include "tessera/engine/progress.hpp"
#include "tessera/engine/run_folder.hpp"
#include "tessera/engine/run_setup.hpp"
#include "tessera/engine/signals.hpp"
#include "tessera/engine/summary.hpp"
#include "tessera/kernels/attention.hpp"
#include "tessera/kernels/gemm.hpp"
#include "tessera/parallel/evaluation.hpp"
#include "tessera/parallel/model_state.hpp"

#include "engine/attention_choice.hpp"
#include "engine/checkpoint_keeper.hpp"
#include "engine/event_log.hpp"
#include "engine/metrics_file.hpp"
#include "engine/run_report.hpp"
#include "engine/step_timeline.hpp"

namespace tessera::engine {
namespace {

// A gradient that is not finite now and then is survived; a run of them means that training has
// diverged. Not so while a dynamic loss scale is looking for its size: it ends by itself.
constexpr int kMostSkipsInARow = 5;

class Trainer {
 public:
  Trainer(Runtime& runtime, config::RunConfig config, const TrainRequest& request);
  void run();

 private:
  bool root() const { return runtime_.rank() == 0; }
  std::int64_t total_steps() const { return setup_.config.run.total_steps; }

  void open_folder();
  void check_same_run(const config::RunConfig& made_with) const;
  void check_earlier_run() const;
  void start();
  void load();
  Stop loop();
  Stop run_step();
  std::vector<nn::Batch> next_batches();
  StepStart start_step();
  /// Waits for steps until no more than `most` are under way, and records them.
  void finish_steps(int most);
  void record(const StepOutcome& outcome, double seconds);
  std::string breakdown(double seconds) const;
  void count_skips(const StepOutcome& outcome);
  Stop reason_to_stop(const StepStart& step) const;
  double validate();
  void validate_and_record(std::int64_t step);
  void save(bool last);
  void note_start() const;
  void finish(Stop stop);
  bool has_summary();
  void nothing_to_do();

  Runtime& runtime_;
  TrainRequest request_;
  RunFolder folder_;
  MetricsFile metrics_;
  EventLog events_;
  CheckpointKeeper checkpoints_;
  RunSetup setup_;
  std::optional<Engine> engine_;
  std::optional<Progress> progress_;
  std::optional<StepTimeline> timeline_;
  std::optional<double> validation_loss_;
  std::optional<StopSignals> signals_;
  Timer elapsed_;
  Timer since_outcome_;  // or since the run went on
  std::string resumed_from_;
  std::int64_t step_flops_ = 0;
  int skips_in_a_row_ = 0;
};

Trainer::Trainer(Runtime& runtime, config::RunConfig config, const TrainRequest& request)
    : runtime_(runtime),
      request_(request),
      folder_(config.run.folder),
      metrics_(folder_.metrics()),
      events_(folder_, runtime.rank() == 0),
      checkpoints_(runtime, folder_.checkpoints().string(), config.run.checkpoint, events_) {
  setup_.config = std::move(config);
  if (request.stop_on_signals) signals_.emplace();
}

// A name beside `folder` that is free: runs/a.1, runs/a.2, …
std::filesystem::path name_aside(const std::filesystem::path& folder) {
  for (int i = 1;; ++i) {
    const std::filesystem::path name = fmt::format("{}.{}", folder.string(), i);
    if (!std::filesystem::exists(name)) return name;
  }
}

void Trainer::open_folder() {
  agreeing(runtime_.world(), [&] {
    if (!root()) return;
    if (request_.resume == "never" && folder_.was_used()) {
      const std::filesystem::path aside = name_aside(folder_.path());
      std::filesystem::rename(folder_.path(), aside);
      log_info(fmt::format("--resume never: moved the earlier run to {}", aside.string()));
    }
    folder_.create();
    folder_.mend_events();
  });
  checkpoints_.tidy();
  set_log_sink([folder = folder_](LogLevel, const std::string& line) {
    try {
      folder.append_log(line);
    } catch (const Error&) {
      // The line was printed. On a full disk the log is the least of the losses.
    }
  });
}

void Trainer::check_same_run(const config::RunConfig& made_with) const {
  const auto difference = config::compare(made_with, setup_.config);
  TESSERA_CHECK(!difference, Code::invalid_config,
                fmt::format("the run in '{}' was made with {} = {}, this run file says {}: choose "
                            "another run.folder, or train the earlier configuration on",
                            folder_.path().string(), difference->path, difference->first,
                            difference->second));
}

void Trainer::check_earlier_run() const {
  agreeing(runtime_.world(), [&] {
    if (!root() || !std::filesystem::exists(folder_.config())) return;
    // What was written is resolved already; resolving it again would tie it to this rank count.
    check_same_run(config::read_run_file(folder_.config().string()));
  });
}

void Trainer::load() {
  const auto checkpoint = checkpoints_.find(request_.resume);
  if (checkpoint) {
    engine_->load(*checkpoint);
    resumed_from_ = checkpoint->path();
  } else if (setup_.weights) {
    parallel::load_parameters(*setup_.model, engine_->optimizer(), *setup_.weights);
  } else {
    parallel::initialize(*setup_.model, engine_->optimizer(), setup_.config.run.seed);
  }
  checkpoints_.begin(*engine_, checkpoint, request_.resume);
}

// Of all ranks, named by the axes that have more than one.
std::string everyone_axes(const MeshShape& mesh) {
  return fmt::format("{}data{}{}", mesh.pipeline > 1 ? "pipeline+" : "",
                     mesh.sequence > 1 ? "+sequence" : "", mesh.tensor > 1 ? "+tensor" : "");
}

void Trainer::start() {
  check_memory(runtime_, *setup_.model, setup_.config, setup_.device);
  EngineOptions options = engine_options(setup_.config, setup_.device);
  const MeshShape& mesh = setup_.mesh->shape();
  if (mesh.tensor * mesh.pipeline > 1)
    options.zero.everyone = &setup_.mesh->group(everyone_axes(mesh));
  engine_.emplace(setup_.mesh->group(mesh.sequence > 1 ? "data+sequence" : "data"), *setup_.model,
                  options);
  load();
  agreeing(runtime_.world(), [&] {
    if (!root()) return;
    write_text(folder_.config(), config::to_yaml(setup_.config));
    folder_.truncate_metrics(engine_->step());
    folder_.clear_requeue();
  });
  const double limit = setup_.config.run.minutes ? *setup_.config.run.minutes * 60 : 0;
  const std::int64_t last =
      request_.stop_after > 0 ? std::min(request_.stop_after, total_steps()) : total_steps();
  progress_.emplace(engine_->step(), last, limit);
  timeline_.emplace(runtime_, setup_, folder_.timeline());
}

std::vector<nn::Batch> Trainer::next_batches() {
  const ScopedSpan span(SpanKind::input, "input");
  const config::Batch& sizes = setup_.config.engine.batch;
  const std::int64_t length = setup_.config.data.sequence_length;
  const data::BatchShape shape{sizes.micro, engine_->data_ranks(), sizes.accumulation};
  std::vector<nn::Batch> batches;
  for (std::int64_t j = 0; j < sizes.accumulation; ++j) {
    nn::Batch batch;
    batch.ids = Tensor({sizes.micro, length}, DType::int32, {}, Purpose::workspace);
    batch.targets = Tensor({sizes.micro, length}, DType::int32, {}, Purpose::workspace);
    batch.first_row = shape.first_row(j, engine_->data_rank());
    setup_.train->fill(engine_->samples() + batch.first_row, sizes.micro,
                       batch.ids.as<std::int32_t>(), batch.targets.as<std::int32_t>());
    batches.push_back(std::move(batch));
  }
  return batches;
}

StepStart Trainer::start_step() {
  std::vector<nn::Batch> batches = next_batches();
  const auto& minutes = setup_.config.run.minutes;
  const bool time_is_up = root() && minutes && elapsed_.seconds() >= *minutes * 60;
  const bool stop_asked = signals_ && signals_->requested();
  const std::int64_t flops_before = kernels::flop_count();
  StepStart start = engine_->start_step(batches, {stop_asked ? 1.0 : 0.0, time_is_up ? 1.0 : 0.0});
  step_flops_ = kernels::flop_count() - flops_before;
  return start;
}

void Trainer::finish_steps(int most) {
  while (engine_->unfinished_steps() > most) {
    const StepOutcome outcome = engine_->finish_step();
    count_skips(outcome);
    record(outcome, since_outcome_.seconds());
    since_outcome_.restart();
  }
}

void Trainer::record(const StepOutcome& outcome, double seconds) {
  if (!root()) return;
  const double rate = static_cast<double>(outcome.tokens) / seconds;
  nlohmann::ordered_json line;
  line["step"] = outcome.step;
  line["loss"] = outcome.loss;
  line["lr"] = outcome.learning_rate;
  line["grad_norm"] = outcome.gradient_norm;
  line["tokens"] = outcome.tokens;
  line["seconds"] = seconds;
  line["tokens_per_second"] = rate;
  line["loss_scale"] = outcome.loss_scale;
  line["skipped"] = outcome.skipped;
  metrics_.add(line.dump());
  const StepReport report{outcome.step,
                          outcome.loss,
                          outcome.learning_rate,
                          outcome.gradient_norm,
                          seconds,
                          rate,
                          static_cast<double>(step_flops_) * runtime_.size() / seconds,
                          memory_ledger(setup_.device).peak_total(),
                          outcome.skipped};
  const std::string text = progress_->line(report, elapsed_.seconds());
  if (outcome.step == 1 || outcome.step % setup_.config.run.log_every == 0 ||
      outcome.step == total_steps())
    log_info(text + breakdown(seconds));
  autograd::Profiler::clear();
}

// Where the time of a step went, when engine.wall_clock_breakdown asks for it.
std::string Trainer::breakdown(double seconds) const {
  if (!autograd::Profiler::enabled()) return "";
  std::string text = "\n ";
  for (const auto& [name, spent] : autograd::Profiler::seconds())
    text += fmt::format("  {} {:.0f}%", name, 100 * spent / seconds);
  return text;
}

// What the loss scale becomes after a skipped step.
std::string describe_scale(const optim::LossScaler* scaler, double before) {
  if (scaler == nullptr) return "";
  if (scaler->scale() == before) return fmt::format("; the loss scale stays {}", before);
  return fmt::format("; the loss scale falls from {} to {}", before, scaler->scale());
}

void Trainer::count_skips(const StepOutcome& outcome) {
  skips_in_a_row_ = outcome.skipped ? skips_in_a_row_ + 1 : 0;
  const optim::LossScaler* scaler = engine_->loss_scaler();
  if (outcome.skipped && root())
    log_warning(fmt::format("step {} skipped: {}{}", outcome.step, outcome.skipped_reason,
                            describe_scale(scaler, outcome.loss_scale)));
  if (skips_in_a_row_ < kMostSkipsInARow || (scaler != nullptr && scaler->is_dynamic())) return;
  const char* const advice =
      scaler != nullptr ? "The loss scale is too large for fp16, or training has diverged: lower "
                          "engine.fp16.loss_scale, or set it to 0 for a dynamic one"
                        : "Training has diverged: lower the learning rate or clip gradients";
  fail(Code::not_a_number,
       fmt::format("{} steps in a row had gradients that are not finite (step {}, loss {}): {}. "
                   "{}, and continue from an earlier checkpoint in '{}'",
                   kMostSkipsInARow, outcome.step, outcome.loss, outcome.skipped_reason, advice,
                   checkpoints_.path()));
}

Stop Trainer::reason_to_stop(const StepStart& step) const {
  if (step.step >= total_steps()) return Stop::finished;
  if (step.flags[0] > 0) return Stop::signal;
  if (request_.stop_after > 0 && step.step >= request_.stop_after) return Stop::step_limit;
  if (step.flags[1] > 0) return Stop::time_limit;
  return Stop::no;
}

double Trainer::validate() {
  const ScopedSpan span(SpanKind::validation, "validation");
  const config::RunConfig& config = setup_.config;
  std::int64_t rows = setup_.validation->size();
  if (config.run.validate.batches > 0)
    rows = std::min(rows, config.run.validate.batches * config.engine.batch.train);
  const parallel::EvaluationResult result = parallel::evaluate(
      *setup_.model, engine_->hooks(), engine_->group(), rows, config.data.sequence_length,
      config.engine.batch.micro,
      [&](std::int64_t row, std::int32_t* inputs, std::int32_t* targets) {
        setup_.validation->read(row, inputs, targets);
      },
      engine_->stream());
  return result.loss();
}

void Trainer::validate_and_record(std::int64_t step) {
  validation_loss_ = validate();
  if (!root()) return;
  nlohmann::ordered_json line;
  line["step"] = step;
  line["validation_loss"] = *validation_loss_;
  metrics_.add(line.dump());
  log_info(fmt::format("step {}  validation loss {:.4f}", step, *validation_loss_));
}

void Trainer::save(bool last) {
  const ScopedSpan span(SpanKind::checkpoint, "checkpoint");
  checkpoints_.save(*engine_, config::to_yaml(setup_.config), last);
}

Stop Trainer::loop() {
  for (;;) {
    timeline_->before(engine_->step() + 1);
    const Stop stop = run_step();
    timeline_->after(engine_->step(), stop != Stop::no);
    if (stop != Stop::no) return stop;
  }
}

Stop Trainer::run_step() {
  const ScopedSpan span(SpanKind::step, "step",
                        [&] { return SpanDetails{.step = engine_->step() + 1}; });
  const config::RunSection& run = setup_.config.run;
  const auto is_due = [](std::int64_t step, std::int64_t every) {
    return every > 0 && step % every == 0;
  };
  if (engine_->unfinished_steps() == 0) since_outcome_.restart();
  const StepStart step = start_step();
  const Stop stop = reason_to_stop(step);
  const bool validates =
      setup_.validation && (stop == Stop::finished || is_due(step.step, run.validate.every));
  const bool saves = stop != Stop::no || is_due(step.step, run.checkpoint.every);
  finish_steps(validates || saves ? 0 : engine_->steps_ahead());
  if (validates) validate_and_record(step.step);
  if (step.saved) checkpoints_.note_saved(*step.saved);
  if (saves) save(stop != Stop::no);
  return stop;
}

void Trainer::finish(Stop stop) {
  agreeing(runtime_.world(), [&] { metrics_.close(); });
  // The metrics of a run that goes on later have no validation here; its summary may.
  if (stop == Stop::time_limit && setup_.validation) validation_loss_ = validate();
  const std::string summary =
      make_summary(runtime_, *engine_, folder_, {request_.threads, validation_loss_, step_flops_});
  events_.add("stop", engine_->step(), {{"reason", to_string(stop)}});
  if (!root()) return;
  write_text(folder_.summary(), summary);
  if (stop == Stop::signal)
    folder_.mark_requeue(fmt::format("stopped by a signal at step {}", engine_->step()));
  log_info(describe_stop(stop, engine_->step(), total_steps()));
  log_info(describe_summary(summary));
}

void Trainer::note_start() const {
  nlohmann::ordered_json fields;
  fields["ranks"] = runtime_.size();
  fields["stage"] = setup_.config.engine.zero.stage;
  if (!resumed_from_.empty()) fields["from"] = resumed_from_;
  events_.add(resumed_from_.empty() ? "start" : "resume", engine_->step(), fields);
}

// Of the state that the run is in.
bool Trainer::has_summary() {
  bool current = false;
  agreeing(runtime_.world(), [&] {
    if (!root() || !std::filesystem::exists(folder_.summary())) return;
    const auto summary = nlohmann::json::parse(read_text(folder_.summary()), nullptr, false);
    current = summary.is_object() && summary.value("steps", std::int64_t{-1}) == engine_->step();
  });
  return runtime_.world().broadcast_text(current ? "yes" : "no", 0) == "yes";
}

void Trainer::nothing_to_do() {
  log_info(
      fmt::format("nothing to do: step {} of {} is done already", engine_->step(), total_steps()));
  if (has_summary()) {
    if (root()) log_info(describe_summary(read_text(folder_.summary())));
    return;
  }
  // The run was killed after its last save.
  const config::Batch& batch = setup_.config.engine.batch;
  step_flops_ = batch.accumulation *
                setup_.model->training_flops(batch.micro, setup_.config.data.sequence_length);
  for (Communicator* group : engine_->communicators()) group->traffic().reset();
  const bool finished = engine_->step() >= total_steps();
  if (finished && setup_.validation) validation_loss_ = validate();
  finish(finished ? Stop::finished : Stop::step_limit);
}

void Trainer::run() {
  open_folder();
  setup_ = open_run(runtime_, std::move(setup_.config));
  kernels::set_attention_kernels(choose_attention(setup_.config, setup_.device));
  check_earlier_run();
  start();
  announce_run(runtime_, setup_, request_.threads);
  if (!resumed_from_.empty())
    log_info(fmt::format("continuing from {} (step {})", resumed_from_, engine_->step()));
  const std::int64_t step = engine_->step();
  const bool limit_reached = request_.stop_after > 0 && step >= request_.stop_after;
  if (step >= total_steps() || limit_reached) return nothing_to_do();
  note_start();
  for (Communicator* group : engine_->communicators()) group->traffic().reset();
  autograd::Profiler::enable(setup_.config.engine.wall_clock_breakdown);
  elapsed_.restart();
  finish(loop());
}

}  // namespace

void train(Runtime& runtime, config::RunConfig config, const TrainRequest& request) {
  // What is set for the whole process while a run lasts.
  struct Guard {
    kernels::GemmOptions before = kernels::gemm_options();
    kernels::AttentionKernels attention_before = kernels::attention_kernels();
    ~Guard() {
      set_log_sink(nullptr);
      kernels::set_gemm_options(before);
      kernels::set_attention_kernels(attention_before);
    }
  } const guard;
  kernels::set_gemm_options({.tf32 = config.run.tf32, .measure = config.run.measure_products});
  Trainer(runtime, std::move(config), request).run();
}

}  // namespace tessera::engine
