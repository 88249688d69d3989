// SPDX-License-Identifier: Apache-2.0
#include "apps/tessera/inspect/pipeline_bubble.hpp"

#include <algorithm>
#include <cmath>

#include "tessera/parallel/pipeline_simulation.hpp"

namespace tessera::app {
namespace {

using parallel::PipelineKind;
using parallel::PipelineShape;

struct Mean {
  double sum = 0, count = 0;
  void add(double value) {
    sum += value;
    ++count;
  }
  double value() const { return count > 0 ? sum / count : 0; }
};

struct StageTimes {
  Mean forward, backward, weight;
};

bool computes(const TimelineSpan& span) {
  return span.stage >= 0 &&
         (span.kind == "forward" || span.kind == "backward" || span.kind == "backward_weight");
}

class Measurement {
 public:
  Measurement(const Timeline& timeline, const PipelineShape& shape)
      : timeline_(timeline), stages_(static_cast<std::size_t>(shape.stages())) {
    for (const Json& pipeline : timeline.facts.at("pipelines"))
      for (const TimelineSpan& step : timeline.ranks.at(0).spans)
        if (step.kind == "step") add(pipeline.get<std::vector<std::size_t>>(), step.step);
  }

  const std::vector<StageTimes>& stages() const { return stages_; }
  double bubble() const { return bubble_.value(); }
  double span() const { return span_.value(); }
  bool empty() const { return span_.count == 0; }

 private:
  void add(const std::vector<std::size_t>& ranks, int step) {
    double first = INFINITY, last = -INFINITY, busy = 0;
    for (const std::size_t rank : ranks) {
      const auto& spans = timeline_.ranks.at(rank).spans;
      const auto whole = std::ranges::find_if(spans, [step](const TimelineSpan& span) {
        return span.kind == "step" && span.step == step;
      });
      if (whole == spans.end()) return;
      for (const TimelineSpan& span : spans) {
        if (!computes(span) || span.begin < whole->begin || span.end > whole->end) continue;
        first = std::min(first, span.begin);
        last = std::max(last, span.end);
        busy += span.end - span.begin;
        note(span);
      }
    }
    if (last <= first) return;
    span_.add(last - first);
    bubble_.add(1 - busy / (static_cast<double>(ranks.size()) * (last - first)));
  }

  void note(const TimelineSpan& span) {
    StageTimes& stage = stages_.at(static_cast<std::size_t>(span.stage));
    Mean& mean = span.kind == "forward"    ? stage.forward
                 : span.kind == "backward" ? stage.backward
                                           : stage.weight;
    mean.add(span.end - span.begin);
  }

  const Timeline& timeline_;
  std::vector<StageTimes> stages_;
  Mean bubble_, span_;
};

Rational nanoseconds(double microseconds) {
  return std::llround(microseconds * 1000);
}

// (p - 1) x what a rank waits for, in the same unit as its work; see doc/pipeline-schedules.md.
std::optional<double> closed_formula(const PipelineShape& shape,
                                     const std::vector<StageTimes>& stages) {
  Mean forward, input, weight;
  for (const StageTimes& stage : stages) {
    forward.add(stage.forward.value());
    input.add(stage.backward.value());
    weight.add(stage.weight.value());
  }
  const double v = shape.chunks, p = shape.ranks, m = shape.micro_batches;
  const double f = v * forward.value(), i = v * input.value(), w = v * weight.value();
  double wait = f + i + w;
  if (shape.kind == PipelineKind::interleaved) {
    if (shape.micro_batches % shape.ranks != 0 || i > 2 * f) return std::nullopt;
    wait /= v;
  }
  if (shape.kind == PipelineKind::zero_bubble) {
    if (shape.micro_batches < shape.ranks) return std::nullopt;
    wait = std::max({f + i - w, f, i});
  }
  if (shape.kind == PipelineKind::zb_v) return std::nullopt;
  const double bubble = (p - 1) * wait;
  return bubble / (m * (f + i + w) + bubble);
}

parallel::PipelineCosts costs_of(const PipelineShape& shape,
                                 const std::vector<StageTimes>& stages) {
  parallel::PipelineCosts costs;
  for (const StageTimes& stage : stages) {
    const Rational backward = nanoseconds(stage.backward.value());
    const Rational weight = nanoseconds(stage.weight.value());
    // A joint backward takes both.
    const Rational half = backward / 2;
    const bool split = shape.splits_backward();
    costs.stages.push_back(
        {nanoseconds(stage.forward.value()), split ? backward : half, split ? weight : half});
  }
  return costs;
}

}  // namespace

std::optional<PipelineBubble> measure_bubble(const Timeline& timeline) {
  if (!timeline.facts.contains("pipeline")) return std::nullopt;
  const Json& facts = timeline.facts["pipeline"];
  const PipelineShape shape =
      PipelineShape{parallel::pipeline_kind(facts.at("schedule").get<std::string>()),
                    facts.at("ranks").get<int>(), facts.at("micro_batches").get<int>(),
                    facts.at("chunks").get<int>()}
          .resolved();
  const Measurement measured(timeline, shape);
  if (measured.empty()) return std::nullopt;
  const auto outcome = parallel::simulate(parallel::make_pipeline_schedule(shape),
                                          costs_of(shape, measured.stages()));
  PipelineBubble bubble;
  bubble.schedule = shape.to_string();
  bubble.measured = measured.bubble();
  bubble.simulated = outcome.bubble_fraction().value();
  bubble.closed = closed_formula(shape, measured.stages());
  bubble.seconds = measured.span() * 1e-6;
  bubble.simulated_seconds = outcome.makespan().value() * 1e-9;
  return bubble;
}

}  // namespace tessera::app
