// SPDX-License-Identifier: Apache-2.0
// How busy a pipeline keeps its ranks: steps of one GPT-2 in every schedule, in turns, each against
// the simulation of that schedule with the times that its stages took.
#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tessera/comm/mesh.hpp"
#include "tessera/comm/runtime.hpp"
#include "tessera/engine/engine.hpp"
#include "tessera/parallel/model_state.hpp"
#include "tessera/parallel/pipeline_simulation.hpp"
#include "tessera/parallel/pipeline_stages.hpp"

#include "engine/some_tokens.hpp"
#include "support/bench.hpp"
#include "support/ranks.hpp"

namespace tessera::bench {
namespace {

using parallel::ActionKind;
using parallel::PipelineKind;

constexpr int kMicroBatches = 8;
constexpr std::int64_t kRows = 2, kPositions = 128, kVocabulary = 257;
constexpr const char* kModel =
    R"({"model_type": "gpt2", "n_layer": 6, "n_embd": 256, "n_head": 4, "n_positions": 128,
        "vocab_size": 257, "embd_pdrop": 0, "attn_pdrop": 0, "resid_pdrop": 0})";
constexpr std::array kParts = {ActionKind::forward, ActionKind::backward,
                               ActionKind::backward_input, ActionKind::backward_weight};

/// A model in the stages of a schedule; of no kind: whole, on each rank for itself.
class Training {
 public:
  Training(Communicator& data, Communicator& line, std::optional<PipelineKind> kind) : line_(line) {
    nn::ModelOptions model;
    model.dtype = DType::bf16;
    model_ = nn::make_model(kModel, model);
    engine::EngineOptions options;
    options.zero.dtype = DType::bf16;
    options.zero.accumulation_steps = kMicroBatches;
    if (kind) {
      take_stages(*kind);
      options.pipeline = *kind;
      options.zero.everyone = &line;
    }
    engine_ = std::make_unique<engine::Engine>(data, *model_, options);
    parallel::initialize(*model_, engine_->optimizer(), 1234);
  }

  void step(std::vector<nn::Batch>& batches) { engine_->train_step(batches); }

  /// Of the last step: time in which ranks computed / (ranks x span), the same as simulated with
  /// the means of what its stages took, and the span in seconds. Collective.
  struct Efficiency {
    double measured, predicted, span;
  };
  Efficiency efficiency() {
    const parallel::PipelineSchedule& schedule = engine_->pipeline()->schedule();
    const auto& entries = engine_->pipeline()->record().entries;
    const auto stages = static_cast<std::size_t>(schedule.shape.stages());
    std::vector<double> seconds(stages * kParts.size() + 1);
    for (const auto& [action, begin, end] : entries) {
      if (!action.computes()) continue;
      const auto part =
          static_cast<std::size_t>(std::ranges::find(kParts, action.kind) - kParts.begin());
      seconds[static_cast<std::size_t>(action.stage) * kParts.size() + part] += end - begin;
      seconds.back() += end - begin;
    }
    line_.all_reduce_scalars(seconds, Reduction::sum);
    const double span = line_.all_reduce_scalar(entries.back().end, Reduction::max);
    return {seconds.back() / (line_.size() * span), simulated(schedule, seconds), span};
  }

 private:
  void take_stages(PipelineKind kind) {
    const auto shape = parallel::PipelineShape{kind, line_.size(), kMicroBatches, 0}.resolved();
    const auto cuts = parallel::cut_layers(model_->layers(), shape.stages(), {});
    ties_ = parallel::take_stages(*model_, line_, shape, cuts);
  }

  static double simulated(const parallel::PipelineSchedule& schedule,
                          const std::vector<double>& seconds) {
    const auto mean = [&](std::size_t stage, std::size_t part) {
      const double sum = seconds[stage * kParts.size() + part];
      return Rational(static_cast<std::int64_t>(1e9 * sum / kMicroBatches));
    };
    parallel::PipelineCosts costs;
    for (std::size_t stage = 0; stage < seconds.size() / kParts.size(); ++stage)
      costs.stages.push_back({mean(stage, 0), mean(stage, 1) + mean(stage, 2), mean(stage, 3)});
    return 1 - parallel::simulate(schedule, costs).bubble_fraction().value();
  }

  Communicator& line_;
  parallel::TieGroups ties_;
  std::unique_ptr<nn::Model> model_;
  std::unique_ptr<engine::Engine> engine_;
};

void measure(Program& program, Communicator& world) {
  const auto self = world.split(world.rank(), 0, "alone");
  Mesh mesh(world, MeshShape{world.size(), 1, 1, 1});
  Communicator& line = mesh.group("pipeline");
  std::vector<nn::Batch> batches(kMicroBatches, some_tokens(kRows, kPositions, kVocabulary));
  Case steps;
  steps.name = "gpt2 5M bf16, " + std::to_string(kMicroBatches) + " micro-batches";
  steps.work = static_cast<double>(kMicroBatches * kRows * kPositions);
  steps.unit = "token";
  Training alone(*self, *self, std::nullopt);
  steps.variants.push_back({.name = "1 rank", .run = [&] {
                              if (world.rank() == 0) alone.step(batches);
                              world.barrier();
                            }});
  const std::vector<PipelineKind>& kinds = parallel::pipeline_kinds();
  std::vector<std::unique_ptr<Training>> trainings;
  std::vector<std::vector<Training::Efficiency>> efficiencies(kinds.size());
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    Training& training =
        *trainings.emplace_back(std::make_unique<Training>(mesh.group("data"), line, kinds[i]));
    steps.variants.push_back({.name = to_string(kinds[i]), .run = [&, i] {
                                training.step(batches);
                                efficiencies[i].push_back(training.efficiency());
                              }});
  }
  const CaseResult result = program.measure(steps, 1);
  if (result.variants.empty()) return;
  for (std::size_t i = 0; i < kinds.size(); ++i) {
    const std::string name = to_string(kinds[i]);
    std::vector<double> measured, over_predicted;
    for (const Training::Efficiency& each : efficiencies[i]) {
      measured.push_back(each.measured);
      over_predicted.push_back(each.measured / each.predicted);
    }
    const auto& fastest =
        *std::ranges::min_element(efficiencies[i], {}, &Training::Efficiency::span);
    program.value("efficiency of " + name, median(measured));
    program.value("efficiency over prediction, " + name, median(over_predicted));
    // On a machine that others use as well, the step that they disturbed least.
    program.value("efficiency over prediction, fastest step of " + name,
                  fastest.measured / fastest.predicted);
  }
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  using namespace tessera::bench;
  return run_on_ranks("engine_pipeline", argc, argv, measure);
}
