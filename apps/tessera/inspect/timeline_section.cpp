// SPDX-License-Identifier: Apache-2.0
#include "apps/tessera/inspect/timeline_section.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <optional>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

#include "apps/tessera/inspect/axis.hpp"
#include "apps/tessera/inspect/line_chart.hpp"
#include "apps/tessera/inspect/pipeline_bubble.hpp"
#include "apps/tessera/inspect/timeline_data.hpp"

namespace tessera::app {
namespace {

constexpr double kWidth = 1180, kLeft = 62, kRight = 28, kLane = 26, kGap = 5, kBottom = 26;
constexpr double kThinnest = 0.25;  // narrower pieces are not drawn
constexpr std::size_t kMostLanes = 64;

struct Kind {
  const char* name;
  const char* title;
};
constexpr std::array<Kind, 10> kKinds = {{{"forward", "forward"},
                                          {"backward", "backward"},
                                          {"backward_weight", "weight gradients"},
                                          {"optimizer", "optimizer"},
                                          {"communication", "communication"},
                                          {"idle", "idle"},
                                          {"input", "input"},
                                          {"validation", "validation"},
                                          {"checkpoint", "checkpoint"},
                                          {"step", "other"}}};

std::vector<TimelineSpan> steps_of(const Timeline& timeline) {
  std::vector<TimelineSpan> steps;
  for (const TimelineSpan& span : timeline.ranks.at(0).spans)
    if (span.kind == "step") steps.push_back(span);
  return steps;
}

// The step of median length is what the others look like.
TimelineSpan typical(std::vector<TimelineSpan> steps) {
  const auto middle = steps.begin() + static_cast<std::ptrdiff_t>(steps.size() / 2);
  std::nth_element(steps.begin(), middle, steps.end(),
                   [](const auto& a, const auto& b) { return a.end - a.begin < b.end - b.begin; });
  return *middle;
}

std::string title_of(const TimelineSpan& piece) {
  const auto kind =
      std::ranges::find_if(kKinds, [&](const Kind& known) { return piece.kind == known.name; });
  std::string title = kind == kKinds.end() ? piece.kind : kind->title;
  if (piece.micro_batch >= 0) title += fmt::format(" {}", piece.micro_batch);
  if (piece.stage >= 0) title += fmt::format(", stage {}", piece.stage);
  return fmt::format("{}: {:.3g} ms", title, (piece.end - piece.begin) / 1000);
}

// One picture of the ranks' lanes between two times.
class Lanes {
 public:
  Lanes(const Timeline& timeline, double begin, double end)
      : timeline_(timeline),
        begin_(begin),
        end_(end),
        lanes_(std::min(timeline.ranks.size(), kMostLanes)) {}

  std::string svg() const {
    const double height = static_cast<double>(lanes_) * (kLane + kGap) + kBottom;
    std::string text = fmt::format(
        "<svg class=\"lanes\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"timeline\">\n",
        kWidth, height);
    text += axis(height);
    for (std::size_t rank = 0; rank < lanes_; ++rank) text += lane(rank);
    return text + "</svg>\n";
  }

 private:
  double x(double time) const {
    return kLeft + (time - begin_) / (end_ - begin_) * (kWidth - kLeft - kRight);
  }

  std::string axis(double height) const {
    std::string text;
    const Axis axis(0, (end_ - begin_) / 1000);
    for (const Tick& tick : axis.ticks(10)) {
      const double at = x(begin_ + tick.value * 1000);
      text += fmt::format(
          "<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"0\" y2=\"{1}\"/>"
          "<text class=\"mid\" x=\"{0:.1f}\" y=\"{2}\">{3} ms</text>\n",
          at, height - kBottom, height - 8, tick.label);
    }
    return text;
  }

  std::string lane(std::size_t rank) const {
    const double top = static_cast<double>(rank) * (kLane + kGap);
    std::string text =
        fmt::format("<text x=\"0\" y=\"{}\">rank {}</text>\n", top + kLane / 2 + 4, rank);
    for (const TimelineSpan& piece : innermost(timeline_.ranks[rank], begin_, end_)) {
      const double left = x(piece.begin), width = x(piece.end) - left;
      if (width < kThinnest) continue;
      text += fmt::format(
          "<rect class=\"k-{}\" x=\"{:.2f}\" y=\"{}\" width=\"{:.2f}\" height=\"{}\"><title>{}"
          "</title></rect>\n",
          escape_html(piece.kind), left, top, width, kLane, escape_html(title_of(piece)));
      if (piece.micro_batch >= 0 && piece.stage >= 0 && piece.kind != "communication" && width > 16)
        text += fmt::format("<text class=\"number\" x=\"{:.2f}\" y=\"{}\">{}</text>\n",
                            left + width / 2, top + kLane / 2 + 4, piece.micro_batch);
    }
    return text;
  }

  const Timeline& timeline_;
  double begin_, end_;
  std::size_t lanes_;
};

using Shares = std::map<std::string, double>;

Shares shares_of(const RankTimeline& rank, const std::vector<TimelineSpan>& steps) {
  Shares shares;
  double whole = 0;
  for (const TimelineSpan& step : steps) {
    whole += step.end - step.begin;
    for (const TimelineSpan& piece : innermost(rank, step.begin, step.end))
      shares[piece.kind] += piece.end - piece.begin;
  }
  for (auto& [kind, share] : shares) share /= whole;
  return shares;
}

std::string shares_table(const Timeline& timeline, const std::vector<TimelineSpan>& steps) {
  std::vector<Shares> ranks;
  for (const RankTimeline& rank : timeline.ranks) ranks.push_back(shares_of(rank, steps));
  std::string head = "<tr><th>rank</th>", rows;
  std::vector<const char*> shown;
  for (const Kind& kind : kKinds) {
    if (std::ranges::none_of(ranks, [&](const Shares& s) { return s.contains(kind.name); }))
      continue;
    shown.push_back(kind.name);
    head += fmt::format("<th><i class=\"key k-{}\"></i>{}</th>", kind.name, kind.title);
  }
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    rows += fmt::format("<tr><td>{}</td>", rank);
    for (const char* kind : shown)
      rows += fmt::format("<td>{:.1f} %</td>", 100 * ranks[rank][kind]);
    rows += "</tr>\n";
  }
  return "<table>" + head + "</tr>\n" + rows + "</table>\n";
}

std::string bubble_table(const PipelineBubble& bubble) {
  const auto row = [](const char* name, double fraction, const std::string& time) {
    return fmt::format(
        "<tr><td>{}</td><td>{:.1f} %</td><td class=\"bar\"><div style=\"width:{:.1f}%\"></div></td>"
        "<td>{}</td></tr>\n",
        name, 100 * fraction, std::clamp(100 * fraction, 0.0, 100.0), time);
  };
  const auto milliseconds = [](double seconds) { return fmt::format("{:.4g} ms", seconds * 1000); };
  std::string text = fmt::format(
      "<div class=\"box\"><h3>Bubble of the pipeline: {}</h3>\n<table><tr><th></th><th>bubble</th>"
      "<th></th><th>a step's passes</th></tr>\n",
      escape_html(bubble.schedule));
  text += row("measured", bubble.measured, milliseconds(bubble.seconds));
  text += row("simulated with the measured times of each stage", bubble.simulated,
              milliseconds(bubble.simulated_seconds));
  if (bubble.closed) text += row("formula, if all stages take as long", *bubble.closed, "");
  return text +
         "</table>\n<p class=\"soft\">The share of the time from the first to the last forward or "
         "backward in which a rank computes neither.</p></div>\n";
}

std::string draw_section(const Timeline& timeline) {
  const std::vector<TimelineSpan> steps = steps_of(timeline);
  TESSERA_CHECK(!steps.empty(), Code::io, "the timeline has no step");
  const TimelineSpan step = typical(steps);
  std::string text = fmt::format(
      "<h2>Timeline</h2>\n<div class=\"box\"><h3>Step {}, the median of {} recorded</h3>"
      "\n{}",
      step.step, steps.size(), Lanes(timeline, step.begin, step.end).svg());
  if (timeline.ranks.size() > kMostLanes)
    text += fmt::format("<p class=\"soft\">The first {} of {} ranks.</p>\n", kMostLanes,
                        timeline.ranks.size());
  text += shares_table(timeline, steps);
  text += fmt::format(
      "<p class=\"soft\">Clocks of the ranks are together to {:.1f} µs{}. timeline.json opens in "
      "ui.perfetto.dev.</p></div>\n",
      timeline.facts.value("clock_error_us", 0.0),
      timeline.facts.contains("times") ? "; times are of the host, not of its GPU" : "");
  if (const auto bubble = measure_bubble(timeline)) text += bubble_table(*bubble);
  return text;
}

}  // namespace

std::string timeline_section(const std::filesystem::path& file) {
  if (!std::filesystem::exists(file)) return "";
  try {
    return draw_section(read_timeline(file));
  } catch (const std::exception& error) {
    return fmt::format("<h2>Timeline</h2>\n<p class=\"alert\">{}</p>\n", escape_html(error.what()));
  }
}

}  // namespace tessera::app
