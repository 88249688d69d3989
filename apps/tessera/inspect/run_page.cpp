// SPDX-License-Identifier: Apache-2.0
#include "apps/tessera/inspect/run_page.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <optional>

#include <fmt/format.h>

#include "tessera/base/file.hpp"
#include "tessera/base/number_format.hpp"
#include "tessera/checkpoint/folder.hpp"

#include "apps/tessera/inspect/line_chart.hpp"
#include "apps/tessera/inspect/page_style.hpp"
#include "apps/tessera/inspect/run_history.hpp"
#include "apps/tessera/inspect/timeline_section.hpp"
#include "apps/tessera/inspect/weight_norms.hpp"

namespace tessera::app {
namespace {

namespace fs = std::filesystem;

// Everything that the page shows.
struct Run {
  fs::path folder;
  RunHistory history;
  Json summary;  // null while the run goes on
  std::unique_ptr<Contents> checkpoint;
};

std::unique_ptr<Contents> newest_checkpoint(const fs::path& folder) {
  const auto newest = checkpoint::Folder((folder / "checkpoints").string()).newest();
  return newest ? open_contents(newest->path) : nullptr;
}

Run read_run(const fs::path& folder) {
  Run run{folder, read_history(folder), {}, newest_checkpoint(folder)};
  if (fs::exists(folder / "summary.json")) {
    run.summary = Json::parse(read_text(folder / "summary.json"), nullptr, false);
    if (!run.summary.is_object()) run.summary = nullptr;
  }
  return run;
}

double number_at(const Json& json, const char* key) {
  return json.is_object() && json.contains(key) && json[key].is_number() ? json[key].get<double>()
                                                                         : std::nan("");
}

// A text of an event; events are written by any version.
std::string text_at(const Json& json, const char* key) {
  if (!json.contains(key)) return "";
  return json[key].is_string() ? json[key].get<std::string>() : json[key].dump();
}

std::string name_of(const fs::path& folder) {
  const fs::path whole = fs::absolute(folder).lexically_normal();
  return whole.has_filename() ? whole.filename().string() : whole.parent_path().filename().string();
}

double written_at(const fs::path& file) {
  const auto age = fs::file_time_type::clock::now() - fs::last_write_time(file);
  return static_cast<double>(std::time(nullptr)) - std::chrono::duration<double>(age).count();
}

// ---- head

std::string model_line(const Run& run) {
  if (!run.checkpoint) return "";
  const Json& model = run.checkpoint->facts()["model"];
  if (!model.is_object()) return "";
  std::string line = model.value("model_type", "model");
  for (const auto& [key, words] : {std::pair{"n_layer", "layers"},
                                   {"num_hidden_layers", "layers"},
                                   {"n_embd", "wide"},
                                   {"hidden_size", "wide"},
                                   {"n_head", "heads"},
                                   {"num_attention_heads", "heads"},
                                   {"num_key_value_heads", "of keys and values"},
                                   {"n_positions", "positions"},
                                   {"max_position_embeddings", "positions"},
                                   {"vocab_size", "tokens in the vocabulary"}})
    if (model.contains(key)) line += fmt::format(" · {} {}", model[key].dump(), words);
  return line;
}

std::string dates_line(const Run& run) {
  const auto& events = run.history.events;
  const double last = written_at(run.folder / "metrics.jsonl");
  std::string line;
  if (!events.empty() && std::isfinite(number_at(events.front(), "time")))
    line = fmt::format("started {} · ", format_time(number_at(events.front(), "time")));
  line += fmt::format("last step recorded {} · page made {}", format_time(last),
                      format_time(static_cast<double>(std::time(nullptr))));
  return line;
}

std::string tile(const std::string& name, const std::string& value) {
  return fmt::format("<div class=\"tile\"><span>{}</span><b>{}</b></div>\n", escape_html(name),
                     escape_html(value));
}

double last_of(const std::vector<Point>& points) {
  return points.empty() ? std::nan("") : points.back().y;
}

double median(const std::vector<Point>& points) {
  std::vector<double> values;
  for (const Point& point : points)
    if (std::isfinite(point.y)) values.push_back(point.y);
  if (values.empty()) return std::nan("");
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::string shown(double value, const std::string& text) {
  return std::isfinite(value) ? text : "–";
}

std::string tiles(const Run& run) {
  const RunHistory& history = run.history;
  const double loss = last_of(history.loss), validation = last_of(history.validation_loss);
  const double rate = median(history.tokens_per_second);
  std::string text = tile("steps", fmt::format("{}", history.steps)) +
                     tile("tokens", format_count(history.tokens)) +
                     tile("last loss", shown(loss, fmt::format("{:.4f}", loss))) +
                     tile("validation loss", shown(validation, fmt::format("{:.4f}", validation))) +
                     tile("tokens/s, median", shown(rate, format_count(rate))) +
                     tile("time in steps", format_duration(history.seconds));
  const double parameters = number_at(run.summary, "parameters");
  if (!std::isfinite(parameters)) return text;
  text += tile("parameters", format_count(parameters));
  text += tile("ranks × threads", fmt::format("{} × {}", number_at(run.summary, "ranks"),
                                              number_at(run.summary, "threads_per_rank")));
  return text;
}

// ---- curves

std::vector<Mark> resume_marks(const RunHistory& history) {
  std::vector<Mark> marks;
  for (const Json& event : history.events) {
    if (text_at(event, "event") != "resume") continue;
    const double step = number_at(event, "step");
    if (!std::isfinite(step)) continue;
    std::string details = fmt::format("resumed after step {}", step);
    if (event.contains("ranks")) details += fmt::format(", {} ranks", event["ranks"].dump());
    if (event.contains("stage")) details += fmt::format(", stage {}", event["stage"].dump());
    if (event.contains("time"))
      details += fmt::format(", {}", format_time(number_at(event, "time")));
    marks.push_back({step, "resumed", details});
  }
  std::stable_sort(marks.begin(), marks.end(),
                   [](const Mark& a, const Mark& b) { return a.x < b.x; });
  return marks;
}

std::string curves(const RunHistory& history) {
  Chart loss{.title = "Loss, nats per token", .may_be_log = true};
  loss.series = {{"training", history.loss}};
  if (const std::size_t width = history.loss.size() / 100; width > 2) {
    loss.series[0].faint = true;
    loss.series.push_back(
        {fmt::format("mean of {} steps", width), thin_out(smooth(history.loss, width), 150)});
  }
  if (!history.validation_loss.empty())
    loss.series.push_back({"validation", history.validation_loss, true});
  Chart norm{.title = "Gradient norm, before clipping", .from_zero = true, .may_be_log = true};
  norm.series = {{"gradient norm", history.gradient_norm}};
  Chart rate{.title = "Learning rate", .from_zero = true};
  rate.series = {{"learning rate", history.learning_rate}};
  Chart speed{.title = "Tokens per second", .from_zero = true};
  speed.series = {{"tokens/s", history.tokens_per_second}};
  std::string text = "<div class=\"charts\">\n";
  for (Chart* chart : {&loss, &norm, &rate, &speed}) {
    chart->marks = resume_marks(history);
    text += draw(*chart);
  }
  return text + "</div>\n";
}

// ---- weights

std::string norm_chart(const WeightNorms& norms, const std::string& title, bool matrices) {
  Chart chart{.title = title, .x_label = "layer", .from_zero = true, .may_be_log = true};
  for (const auto& [name, kind] : norms.layers) {
    if ((kind.dimensions > 1) != matrices) continue;
    Series series{name, {}, true};
    for (const auto& [layer, rms] : kind.by_layer)
      series.points.push_back({static_cast<double>(layer), rms});
    chart.series.push_back(std::move(series));
  }
  return chart.series.empty() ? "" : draw(chart);
}

std::string weights(const Run& run) {
  std::string text = "<h2>Weights</h2>\n";
  if (!run.checkpoint) return text + "<p class=\"soft\">There is no whole checkpoint yet.</p>\n";
  const Json& facts = run.checkpoint->facts();
  const WeightNorms norms = measure_norms(*run.checkpoint);
  text += fmt::format(
      "<p class=\"soft\">Root mean square of every parameter after step {}, checksum {}.</p>\n"
      "<div class=\"charts\">\n{}{}</div>\n",
      facts["step"].dump(), escape_html(facts["weights_checksum"].get<std::string>()),
      norm_chart(norms, "Matrices", true), norm_chart(norms, "Biases and gains", false));
  if (norms.others.empty()) return text;
  text += "<p class=\"soft\">Outside of the layers: ";
  std::string separator;
  for (const auto& [name, rms] : norms.others) {
    text += fmt::format("{}{} {:.4g}", separator, escape_html(name), rms);
    separator = ", ";
  }
  return text + "</p>\n";
}

// ---- tables

std::string traffic_table(const Json& summary) {
  std::string rows;
  for (const auto& [operation, count] : summary["traffic"].items())
    if (operation != "axes" && count.is_object())
      rows += fmt::format("<tr><td>{}</td><td>{}</td><td>{}</td></tr>\n", escape_html(operation),
                          format_bytes(number_at(count, "bytes")),
                          format_count(number_at(count, "messages")));
  return fmt::format(
      "<div class=\"box\"><h3>Traffic of all ranks, all steps</h3>\n<table><tr><th>operation</th>"
      "<th>payload</th><th>messages</th></tr>\n{}</table></div>\n",
      rows);
}

std::string memory_table(const Json& summary) {
  const double total = std::max(1.0, number_at(summary["memory"], "total"));
  std::string rows;
  for (const auto& [purpose, bytes] : summary["memory"].items()) {
    if (!bytes.is_number()) continue;
    rows += fmt::format(
        "<tr><td>{}</td><td>{}</td><td class=\"bar\"><div style=\"width:{:.1f}%\"></div></td>"
        "</tr>\n",
        escape_html(purpose), format_bytes(bytes.get<double>()),
        std::min(100.0, 100 * bytes.get<double>() / total));
  }
  return fmt::format(
      "<div class=\"box\"><h3>Peak memory of the largest rank</h3>\n<table><tr><th>purpose</th>"
      "<th>bytes</th><th></th></tr>\n{}</table></div>\n",
      rows);
}

std::string resources(const Json& summary) {
  std::string text = "<h2>Traffic and memory</h2>\n";
  if (!summary.is_object() || !summary.contains("traffic") || !summary.contains("memory"))
    return text +
           "<p class=\"soft\">Not there yet: they are in summary.json, which a run writes when it "
           "stops.</p>\n";
  return text + "<div class=\"charts\">\n" + traffic_table(summary) + memory_table(summary) +
         "</div>\n";
}

// What the saves cost, in one line.
std::string saves_line(const std::vector<Json>& events) {
  double count = 0, seconds = 0, blocked = 0, bytes = 0;
  for (const Json& event : events) {
    if (text_at(event, "event") != "save" || !std::isfinite(number_at(event, "seconds"))) continue;
    ++count;
    seconds += number_at(event, "seconds");
    bytes += std::max(0.0, number_at(event, "bytes"));
    blocked += std::max(0.0, number_at(event, "seconds_blocked"));
  }
  if (count == 0) return "";
  return fmt::format(
      "<p>Saves: {}, of {} on average, in {:.3g} s each ({}/s); training waited {:.3g} s for each."
      "</p>\n",
      count, format_bytes(bytes / count), seconds / count,
      format_bytes(seconds > 0 ? bytes / seconds : 0), blocked / count);
}

std::string event_row(const Json& event) {
  const std::string kind = text_at(event, "event");
  const double time = number_at(event, "time");
  std::string details;
  for (const auto& [key, value] : event.items()) {
    if (key == "event" || key == "step" || key == "time") continue;
    details +=
        fmt::format("{}{} {}", details.empty() ? "" : ", ", key, text_at(event, key.c_str()));
  }
  const bool alarming = kind == "save_failed" || kind == "damaged";
  return fmt::format("<tr><td{}>{}</td><td>{}</td><td>{}</td><td class=\"text\">{}</td></tr>\n",
                     alarming ? " class=\"alert\"" : "", escape_html(kind),
                     escape_html(text_at(event, "step")),
                     std::isfinite(time) ? format_time(time) : "–", escape_html(details));
}

std::string events_table(const std::vector<Json>& events) {
  std::string rows;
  for (const Json& event : events)
    if (text_at(event, "event") != "save") rows += event_row(event);
  if (rows.empty() && saves_line(events).empty()) return "";
  return "<h2>Events</h2>\n<div class=\"box\">" + saves_line(events) +
         "<table><tr><th>event</th><th>step</th><th>time</th><th class=\"text\"></th></tr>\n" +
         rows + "</table></div>\n";
}

std::string configuration(const fs::path& folder) {
  if (!fs::exists(folder / "config.yaml")) return "";
  return fmt::format(
      "<h2>Configuration</h2>\n<details class=\"box\"><summary>config.yaml, resolved</summary>\n"
      "<pre>{}</pre></details>\n",
      escape_html(read_text(folder / "config.yaml")));
}

}  // namespace

std::string make_run_page(const fs::path& folder) {
  const Run run = read_run(folder);
  const std::string title = escape_html(name_of(folder));
  return "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>" +
         title + " · Tessera</title>\n<style>" + kPageStyle +
         "</style>\n</head>\n<body>\n<main>\n<h1>" + title + "</h1>\n<p>" +
         escape_html(model_line(run)) + "</p>\n<p class=\"soft\">" + escape_html(dates_line(run)) +
         "</p>\n<div class=\"tiles\">\n" + tiles(run) + "</div>\n" + curves(run.history) +
         timeline_section(folder / "timeline.json") + weights(run) + resources(run.summary) +
         events_table(run.history.events) + configuration(folder) + "</main>\n<script>" +
         kPageScript + "</script>\n</body>\n</html>\n";
}

}  // namespace tessera::app
