// SPDX-License-Identifier: Apache-2.0
// Fills in what depends on the rank count, the processor, the tokenizer and the data.
#include "config/resolve.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/shape.hpp"
#include "tessera/config/reader.hpp"

#include "config/mesh.hpp"
#include "config/project.hpp"
#include "config/step_range.hpp"
#include "config/values.hpp"

namespace tessera::config {
namespace {

constexpr const char* kTrain = "engine.train_batch_size";
constexpr const char* kMicro = "engine.train_micro_batch_size_per_gpu";
constexpr const char* kAccumulation = "engine.gradient_accumulation_steps";
constexpr const char* kSchedule = "engine.scheduler.params.";
constexpr std::int64_t kMostSteps = std::int64_t{1} << 53;

class Resolver {
 public:
  Resolver(RunConfig& config, const Facts& facts)
      : config_(config), facts_(facts), values_(config.entries) {}

  void run() {
    resolve_mesh(values_, facts_.ranks);
    data_ = *values_.integer("mesh.data");
    fill_batch();
    fill_dtype();
    fill_warmup();
    if (!config_.bare_engine) {
      fill_partition();
      fill_vocabulary();
      fill_sequence_length();
      fill_log_period();
      fill_total_steps();
    }
  }

 private:
  [[noreturn]] void refuse(std::string_view path, const std::string& what) {
    fail(Code::invalid_config, fmt::format("{}: {}", values_.place(path), what));
  }

  std::optional<std::int64_t> given(const char* path) {
    return values_.is_given(path) ? values_.integer(path) : std::nullopt;
  }

  void fill_partition() {
    constexpr const char* kOurs = "pipeline.partition";
    constexpr const char* kTheirs = "engine.pipeline.partition";
    const bool theirs_given = values_.is_given(kTheirs);
    const std::string theirs = values_.text(kTheirs);
    const std::string meant = theirs_given && theirs != "best" ? theirs : "parameters";
    const Node ours = values_.get(kOurs);
    if (!values_.is_given(kOurs) || ours.text == "auto") {
      values_.derive(kOurs, make_text(meant), theirs_given ? kTheirs : "the default");
    } else if (theirs_given && ours.text != meant) {
      refuse(
          kTheirs,
          fmt::format("`{}` is {}, but `{}` is {} ({}); they mean the same, say it once", kTheirs,
                      json_string(theirs), kOurs, to_json_text(ours), values_.place(kOurs)));
    }
  }

  void fill_batch() {
    const auto train = given(kTrain), micro = given(kMicro), accumulation = given(kAccumulation);
    if (!config_.for_training && !train && !micro) return;
    try {
      batch_ = resolve_batch(train, micro, accumulation, data_);
    } catch (const Error& error) {
      const char* first = train ? kTrain : micro ? kMicro : kAccumulation;
      const std::string place = values_.is_given(first) ? values_.place(first) : config_.file;
      fail(error.code(), fmt::format("{}: {}", place, error.what()));
    }
    const std::string rule = "the batch sizes' rule";
    if (!train) values_.derive(kTrain, make_integer(batch_.train), rule);
    if (!micro) values_.derive(kMicro, make_integer(batch_.micro), rule);
    if (!accumulation) values_.derive(kAccumulation, make_integer(batch_.accumulation), rule);
  }

  void fill_dtype() {
    if (Entry* entry = values_.find("engine.bf16.enabled"); entry->automatic) {
      const bool fp16 = values_.flag("engine.fp16.enabled");
      values_.derive(entry->path, make_boolean(facts_.bf16_instructions && !fp16),
                     fp16                       ? "fp16 is enabled"
                     : facts_.bf16_instructions ? "the processor has bf16 instructions"
                                                : "the processor has no bf16 instructions");
    }
    const std::string dtype = to_string(run_dtype(values_));
    const char* const sent = "engine.communication_data_type";
    if (!values_.is_given(sent)) values_.derive(sent, make_text(dtype), "the run's type");
    const char* const sums = "engine.data_types.grad_accum_dtype";
    const std::string wanted = values_.text(sums);
    if (wanted == "fp32" || wanted == dtype) return;
    fail(Code::not_supported,
         fmt::format("{}: `{}` is {} in a run in {}, which is not available yet; leave it at fp32",
                     values_.place(sums), sums, wanted, dtype));
  }

  void fill_warmup() {
    const auto is_auto = [&](const std::string& path) {
      const Entry* entry = values_.find(path);
      return entry != nullptr && entry->automatic;
    };
    const std::string top = fmt::format("{}warmup_max_lr", kSchedule);
    if (is_auto(top))
      values_.derive(top, values_.get("engine.optimizer.params.lr"), "the optimizer's lr");
    const std::string length = fmt::format("{}warmup_num_steps", kSchedule);
    if (is_auto(length)) values_.derive(length, make_integer(1), "auto: as good as no warm-up");
  }

  void fill_vocabulary() {
    const char* const path = "model.vocab_size";
    if (!facts_.vocabulary || !values_.has(path)) return;
    const auto size = given(path);
    if (!size)
      values_.derive(path, make_integer(*facts_.vocabulary), "the tokenizer");
    else if (*size < *facts_.vocabulary)
      refuse(path, fmt::format("`model.vocab_size` is {}, but the tokenizer {} has {} tokens",
                               *size, values_.text("data.tokenizer"), *facts_.vocabulary));
  }

  void fill_sequence_length() {
    const char* const path = "data.sequence_length";
    auto inlined = values_.integer("model.n_positions");
    if (!inlined) inlined = values_.integer("model.max_position_embeddings");
    const auto longest = inlined ? inlined : facts_.positions;
    if (!longest) return;
    const auto length = given(path);
    if (!length)
      values_.derive(path, make_integer(*longest), "the model's longest");
    else if (*length > *longest)
      refuse(path, fmt::format("`data.sequence_length` is {}, but the model has {} positions",
                               *length, *longest));
  }

  void fill_log_period() {
    const char* const path = "run.log_every";
    if (values_.is_given(path)) return;
    if (const auto same = values_.integer("engine.steps_per_print"))
      values_.derive(path, make_integer(*same), "engine.steps_per_print");
    else
      values_.derive(path, make_integer(10), "the default");
  }

  void fill_total_steps() {
    const std::int64_t steps = total_steps();
    if (steps == 0) return;
    if (!values_.integer("run.steps")) {
      if (!values_.has("run.total_steps"))
        config_.entries.push_back({"run.total_steps", "null", Source{}, true});
      values_.derive("run.total_steps", make_integer(steps),
                     values_.integer("run.tokens") ? "run.tokens / (batch × sequence length)"
                                                   : "run.epochs × sequences / batch");
    }
    const auto recorded = parse_step_range(values_.get("run.timeline"));
    if (recorded && recorded->last > steps)
      refuse("run.timeline", fmt::format("`run.timeline` is {}, but the run has {} steps",
                                         describe(values_.get("run.timeline")), steps));
    const std::string total = fmt::format("{}total_num_steps", kSchedule);
    if (Entry* entry = values_.find(total); entry != nullptr && entry->automatic)
      values_.derive(total, make_integer(steps), "the length of the run");
  }

  /// 0 while unknown.
  std::int64_t total_steps() {
    if (const auto steps = values_.integer("run.steps")) return *steps;
    if (batch_.train == 0) return 0;
    const auto length = values_.integer("data.sequence_length");
    if (const auto tokens = values_.integer("run.tokens"))
      return length ? ceil_divide(*tokens, checked_multiply(batch_.train, *length)) : 0;
    const auto epochs = values_.number("run.epochs");
    if (!epochs || !facts_.sequences) return 0;
    const double steps = std::ceil(*epochs * static_cast<double>(*facts_.sequences) /
                                   static_cast<double>(batch_.train));
    if (steps > static_cast<double>(kMostSteps))
      refuse("run.epochs", fmt::format("`run.epochs` is {}, which makes {} steps", *epochs, steps));
    return std::max<std::int64_t>(1, static_cast<std::int64_t>(steps));
  }

  RunConfig& config_;
  const Facts& facts_;
  Values values_;
  std::int64_t data_ = 1;
  Batch batch_;
};

}  // namespace

bool is_open(std::string_view path) {
  static constexpr std::array<std::string_view, 14> paths = {
      "mesh.pipeline",
      "mesh.data",
      "mesh.sequence",
      "mesh.tensor",
      "engine.train_batch_size",
      "engine.train_micro_batch_size_per_gpu",
      "engine.gradient_accumulation_steps",
      "engine.bf16.enabled",
      "engine.communication_data_type",
      "engine.scheduler.params.total_num_steps",
      "engine.scheduler.params.warmup_max_lr",
      "engine.scheduler.params.warmup_num_steps",
      "data.sequence_length",
      "model.vocab_size"};
  return std::find(paths.begin(), paths.end(), path) != paths.end();
}

int fewest_ranks(const RunConfig& config) {
  if (config.comm.nodes) {
    std::size_t ranks = 0;
    for (const std::vector<int>& node : *config.comm.nodes) ranks += node.size();
    return static_cast<int>(ranks);
  }
  std::vector<Entry> entries = config.entries;
  Values values(entries);
  const auto given = [&](const char* path) {
    return values.is_given(path) ? values.integer(path).value_or(0) : 0;
  };
  const MeshShape mesh = said_mesh(values);
  const std::int64_t micro = given(kMicro), accumulation = given(kAccumulation);
  const bool follows = mesh.data == 0 && micro > 0 && accumulation > 0;
  const std::int64_t data = follows ? given(kTrain) / micro / accumulation : 1;
  const std::int64_t most = kMostRanks / std::max<std::int64_t>(1, data);
  TESSERA_CHECK(
      mesh.places() <= most, Code::invalid_config,
      fmt::format("{}: mesh and batch sizes ask for more than {} ranks", config.file, kMostRanks));
  return static_cast<int>(mesh.places() * std::max<std::int64_t>(1, data));
}

void resolve(RunConfig& config, const Facts& facts) {
  Resolver(config, facts).run();
  project(config);
}

}  // namespace tessera::config
