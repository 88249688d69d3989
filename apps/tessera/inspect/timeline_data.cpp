// SPDX-License-Identifier: Apache-2.0
#include "apps/tessera/inspect/timeline_data.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/file.hpp"

namespace tessera::app {
namespace {

constexpr double kRounding = 1e-3;

TimelineSpan span_of(const Json& event) {
  const Json& details = event.at("args");
  const double begin = event.at("ts").get<double>();
  return {event.at("cat").get<std::string>(),
          begin,
          begin + event.at("dur").get<double>(),
          details.value("micro_batch", -1),
          details.value("stage", -1),
          details.value("step", -1)};
}

Timeline parse(const std::string& text) {
  const Json file = Json::parse(text);
  Timeline timeline;
  timeline.facts = file.at("otherData");
  timeline.ranks.resize(timeline.facts.at("ranks").get<std::size_t>());
  for (const Json& event : file.at("traceEvents"))
    if (event.at("ph") == "X")
      timeline.ranks.at(event.at("pid").get<std::size_t>()).spans.push_back(span_of(event));
  for (RankTimeline& rank : timeline.ranks)
    std::ranges::stable_sort(rank.spans, [](const TimelineSpan& a, const TimelineSpan& b) {
      return a.begin != b.begin ? a.begin < b.begin : a.end > b.end;
    });
  return timeline;
}

// Hands out time from the left to the right.
class Sweep {
 public:
  Sweep(double begin, double end) : at_(begin), end_(end) {}

  void to(double time, const TimelineSpan& inner) {
    const double until = std::min(time, end_);
    if (until <= at_) return;
    const bool goes_on = !pieces_.empty() && pieces_.back().kind == inner.kind &&
                         pieces_.back().micro_batch == inner.micro_batch &&
                         at_ - pieces_.back().end < kRounding;
    if (goes_on)
      pieces_.back().end = until;
    else
      pieces_.push_back({inner.kind, at_, until, inner.micro_batch, inner.stage, inner.step});
    at_ = until;
  }
  void skip(double time) { at_ = std::max(at_, std::min(time, end_)); }
  std::vector<TimelineSpan> take() { return std::move(pieces_); }

 private:
  double at_, end_;
  std::vector<TimelineSpan> pieces_;
};

}  // namespace

Timeline read_timeline(const std::filesystem::path& file) {
  try {
    return parse(read_text(file));
  } catch (const Json::exception& error) {
    fail(Code::io, fmt::format("'{}' is no timeline of ours: {}", file.string(), error.what()));
  } catch (const std::out_of_range&) {
    fail(Code::io, fmt::format("'{}' has events of ranks that it does not have", file.string()));
  }
}

std::vector<TimelineSpan> innermost(const RankTimeline& rank, double begin, double end) {
  Sweep sweep(begin, end);
  std::vector<const TimelineSpan*> open;
  const auto close_until = [&](double time) {
    while (!open.empty() && open.back()->end <= time + kRounding) {
      sweep.to(open.back()->end, *open.back());
      open.pop_back();
    }
  };
  for (const TimelineSpan& span : rank.spans) {
    close_until(span.begin);
    if (open.empty())
      sweep.skip(span.begin);
    else
      sweep.to(span.begin, *open.back());
    open.push_back(&span);
  }
  close_until(end + 2 * kRounding);
  while (!open.empty()) {
    sweep.to(open.back()->end, *open.back());
    open.pop_back();
  }
  return sweep.take();
}

}  // namespace tessera::app
