// SPDX-License-Identifier: Apache-2.0
// doc/configuration.md, from the table of keys.
#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "tessera/config/report.hpp"

#include "config/table.hpp"

namespace tessera::config {
namespace {

constexpr const char* kIntroduction = R"(# Configuration

This page is generated from the table that the reader uses (`tessera config --markdown`); a test compares the two.

A run file is YAML, or strict JSON when its name ends in `.json`. Every key is known: an unknown, misspelt or repeated
key, or a value of a wrong type, is an error that names the file, the line and the nearest known key. `--set path=value`
overrides any path; the value is YAML, `null` removes what the file says. Whole numbers may be written as `5e8`. Paths of files
are relative to the working directory, except `engine`, which is relative to the run file.
`tessera config RUN.yaml` prints every value with where it came from.

Each key has a status:

- **supported**;
- **no effect**: accepted, changes nothing here; a line in the log gives the reason that stands in the last column;
- **not yet**: not available yet; an error when it is switched on, fine while it has its default;
- **with it**: tunes something that is not available yet, and has no effect while that is switched off.
)";

/// Inside a table cell.
std::string cell(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '|') escaped += '\\';
    escaped += c;
  }
  return escaped;
}

const char* status_text(Status status) {
  switch (status) {
    case Status::supported:
      return "supported";
    case Status::no_effect:
      return "no effect";
    case Status::not_yet:
      return "not yet";
    case Status::dependent:
      break;
  }
  return "with it";
}

std::string default_text(const Row& row) {
  return row.fallback == "null" ? "" : fmt::format("`{}`", row.fallback);
}

std::string last_column(const Row& row) {
  std::string text = row.meaning;
  const auto append = [&](const std::string& more) {
    if (!more.empty()) text += fmt::format("{}{}", text.empty() ? "" : " ", more);
  };
  if (!row.later.empty())
    append(fmt::format("Not available yet: {}.", fmt::join(row.later, ", ")));
  else if (row.status == Status::no_effect || row.status == Status::supported)
    append(row.note);
  return text;
}

std::string row_text(const Row& row, const std::string& name) {
  const std::string type = row.type.kinds == 0 ? "anything" : row.type.to_string();
  return fmt::format("| `{}` | {} | {} | {} | {} |\n", name, cell(type), cell(default_text(row)),
                     status_text(row.status), cell(last_column(row)));
}

constexpr const char* kHead =
    "\n| key | type | default | status | meaning, or reason |\n|---|---|---|---|---|\n";

/// "engine.zero_optimization" for its keys, "engine" for engine.optimizer.type.
std::string section_of(const std::string& path) {
  const std::vector<std::string> segments = split_path(path);
  if (segments.size() == 1) return "";
  if (segments[0] != "engine" || segments.size() == 2) return segments[0];
  if (segments[1] == "optimizer" || segments[1] == "scheduler") return "engine";
  return fmt::format("{}.{}", segments[0], segments[1]);
}

std::string key_tables() {
  std::vector<std::string> sections;
  std::map<std::string, std::string> rows;
  for (const Row& row : table()) {
    const std::string section = section_of(row.path);
    std::string& text = rows[section];
    if (text.empty()) sections.push_back(section);
    text += row_text(row, section.empty() ? row.path : row.path.substr(section.size() + 1));
  }
  std::string text;
  for (const std::string& section : sections)
    text += fmt::format("\n## {}\n{}{}", section.empty() ? "Top level" : section, kHead,
                        rows.at(section));
  return text;
}

std::string type_tables(const std::string& title, const std::vector<NamedType>& types) {
  std::string text = fmt::format("\n## {}\n", title), later;
  for (const NamedType& type : types) {
    if (type.status != Status::supported) {
      later += fmt::format("{}`{}`", later.empty() ? "" : ", ", type.name);
      continue;
    }
    text += fmt::format("\n### {}\n", type.name);
    text += type.parameters.empty() ? "\nNo parameters.\n" : kHead;
    for (const Row& row : type.parameters) text += row_text(row, row.path);
  }
  if (!later.empty()) text += fmt::format("\nNot available yet: {}.\n", later);
  return text;
}

std::string alias_table() {
  std::string text = "\n## Other names\n\n| name | means |\n|---|---|\n";
  for (const auto& [name, meaning] : aliases())
    text += fmt::format("| `{}` | `{}` |\n", name, meaning);
  return text;
}

}  // namespace

std::string configuration_markdown() {
  return fmt::format("{}{}{}{}{}", kIntroduction, key_tables(),
                     type_tables("Optimizers (engine.optimizer.type)", optimizer_types()),
                     type_tables("Schedules (engine.scheduler.type)", scheduler_types()),
                     alias_table());
}

}  // namespace tessera::config
