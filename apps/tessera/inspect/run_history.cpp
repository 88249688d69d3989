// SPDX-License-Identifier: Apache-2.0
#include "apps/tessera/inspect/run_history.hpp"

#include <cmath>
#include <ctime>
#include <fstream>
#include <limits>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

namespace tessera::app {
namespace {

std::vector<Json> read_lines(const std::filesystem::path& path) {
  std::vector<Json> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    Json entry = Json::parse(line, nullptr, false);
    if (entry.is_object()) lines.push_back(std::move(entry));
  }
  return lines;
}

double number(const Json& entry, const char* key) {
  const auto found = entry.find(key);
  return found != entry.end() && found->is_number() ? found->get<double>()
                                                    : std::numeric_limits<double>::quiet_NaN();
}

void add_step(RunHistory& history, const Json& entry, double step) {
  history.loss.push_back({step, number(entry, "loss")});
  history.learning_rate.push_back({step, number(entry, "lr")});
  history.gradient_norm.push_back({step, number(entry, "grad_norm")});
  history.tokens_per_second.push_back({step, number(entry, "tokens_per_second")});
  history.steps = static_cast<std::int64_t>(step);
  for (const auto& [key, sum] :
       {std::pair{"tokens", &history.tokens}, {"seconds", &history.seconds}})
    if (const double value = number(entry, key); std::isfinite(value)) *sum += value;
}

}  // namespace

RunHistory read_history(const std::filesystem::path& run) {
  TESSERA_CHECK(
      std::filesystem::exists(run / "metrics.jsonl"), Code::io,
      fmt::format("'{}' is not the folder of a run: it has no metrics.jsonl", run.string()));
  RunHistory history;
  for (const Json& entry : read_lines(run / "metrics.jsonl")) {
    const double step = number(entry, "step");
    if (!std::isfinite(step)) continue;
    if (entry.contains("loss")) add_step(history, entry, step);
    if (entry.contains("validation_loss"))
      history.validation_loss.push_back({step, number(entry, "validation_loss")});
  }
  history.events = read_lines(run / "events.jsonl");
  return history;
}

std::string format_time(double unix_seconds) {
  const auto seconds = static_cast<std::time_t>(unix_seconds);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[64];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M UTC", &parts);
  return text;
}

}  // namespace tessera::app
