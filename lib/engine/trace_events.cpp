// SPDX-License-Identifier: Apache-2.0
#include "engine/trace_events.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace tessera::engine {
namespace {

using Json = nlohmann::ordered_json;

std::string line(const Json& event) {
  return event.dump(-1, ' ', false, Json::error_handler_t::replace) + ",\n";
}

std::string metadata(int rank, int thread, const char* what, const char* key, const Json& value) {
  return line(
      {{"ph", "M"}, {"pid", rank}, {"tid", thread}, {"name", what}, {"args", {{key, value}}}});
}

Json arguments(const SpanDetails& details) {
  Json json = Json::object();
  if (details.step >= 0) json["step"] = details.step;
  for (const auto& [key, value] : {std::pair{"micro_batch", details.micro_batch},
                                   {"stage", details.stage},
                                   {"peer", details.peer}})
    if (value >= 0) json[key] = value;
  if (details.bytes >= 0) json["bytes"] = details.bytes;
  if (!details.group.empty()) json["group"] = details.group;
  if (!details.label.empty()) json["of"] = details.label;
  return json;
}

std::string name_of(const Span& span) {
  const SpanDetails& details = span.details;
  if (details.step >= 0) return fmt::format("{} {}", span.name, details.step);
  if (details.micro_batch >= 0) return fmt::format("{} {}", span.name, details.micro_batch);
  return span.name;
}

// Numbers of a nanosecond's precision, which a double of microseconds has for days.
double microseconds(std::int64_t nanoseconds) {
  return static_cast<double>(nanoseconds) / 1000;
}

}  // namespace

std::int64_t ClockMap::operator()(std::int64_t time) const {
  const std::int64_t between = after_.at - before_.at;
  if (between <= 0) return time + before_.offset;
  const double part = static_cast<double>(time - before_.at) / static_cast<double>(between);
  const double drift = static_cast<double>(after_.offset - before_.offset);
  return time + before_.offset + std::llround(part * drift);
}

std::int64_t ClockMap::error() const {
  return std::max(before_.error, after_.error);
}

Lane lane_of(SpanKind kind) {
  const bool communicates = kind == SpanKind::communication || kind == SpanKind::idle;
  return communicates ? Lane::communication : Lane::compute;
}

std::string trace_events(int rank, const std::string& process, std::span<const Span> spans,
                         const ClockMap& clock, std::int64_t origin) {
  std::string text = metadata(rank, 0, "process_name", "name", process);
  text += metadata(rank, 0, "process_sort_index", "sort_index", rank);
  for (const auto& [lane, name] :
       {std::pair{Lane::compute, "compute"}, {Lane::communication, "communication and idle"}}) {
    text += metadata(rank, static_cast<int>(lane), "thread_name", "name", name);
    text += metadata(rank, static_cast<int>(lane), "thread_sort_index", "sort_index",
                     static_cast<int>(lane));
  }
  std::int64_t flights = 0;
  for (const Span& span : spans) {
    const std::int64_t begin = clock(span.begin) - origin, end = clock(span.end) - origin;
    Json event{{"ph", "X"},
               {"pid", rank},
               {"tid", static_cast<int>(lane_of(span.kind))},
               {"ts", microseconds(begin)},
               {"dur", microseconds(end - begin)},
               {"name", name_of(span)},
               {"cat", to_string(span.kind)},
               {"args", arguments(span.details)}};
    if (span.kind != SpanKind::in_flight) {
      text += line(event);
      continue;
    }
    event["ph"] = "b";
    event["id2"] = {{"local", fmt::format("{:#x}", flights++)}};
    event.erase("dur");
    text += line(event);
    event["ph"] = "e";
    event["ts"] = microseconds(end);
    event.erase("args");
    text += line(event);
  }
  return text;
}

}  // namespace tessera::engine
