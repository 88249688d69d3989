// SPDX-License-Identifier: Apache-2.0
#include "apps/tessera/launch/slurm_allocation.hpp"

#include <cstdlib>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

#include "apps/tessera/launch/text.hpp"

namespace tessera::app {
namespace {

// At commas that no bracket encloses.
std::vector<std::string> split_outside_brackets(const std::string& text) {
  std::vector<std::string> parts(1);
  int depth = 0;
  for (const char c : text) {
    depth += c == '[' ? 1 : c == ']' ? -1 : 0;
    if (c == ',' && depth == 0)
      parts.emplace_back();
    else
      parts.back() += c;
  }
  return parts;
}

[[noreturn]] void refuse(const std::string& text) {
  fail(Code::invalid_argument, fmt::format("'{}' is not a list as Slurm writes them", text));
}

// "01-03" is 01 02 03: as wide as its first number is written.
std::vector<std::string> expand_range(const std::string& range) {
  const auto ends = split(range, '-');
  const auto first = to_number(ends.front()), last = to_number(ends.back());
  if (ends.size() > 2 || !first || !last || *last < *first) refuse(range);
  std::vector<std::string> numbers;
  for (int i = *first; i <= *last; ++i)
    numbers.push_back(fmt::format("{:0{}}", i, ends.front().size()));
  return numbers;
}

std::vector<std::string> expand_name(const std::string& name) {
  const auto open = name.find('['), close = name.find(']');
  if (open == std::string::npos && close == std::string::npos) return {name};
  if (open == std::string::npos || close == std::string::npos || close < open) refuse(name);
  const auto rests = expand_name(name.substr(close + 1));
  std::vector<std::string> names;
  for (const std::string& range : split(name.substr(open + 1, close - open - 1), ','))
    for (const std::string& number : expand_range(range))
      for (const std::string& rest : rests) names.push_back(name.substr(0, open) + number + rest);
  return names;
}

const char* first_set(const char* name, const char* older_name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : std::getenv(older_name);
}

}  // namespace

std::vector<std::string> expand_node_list(const std::string& text) {
  std::vector<std::string> names;
  for (const std::string& part : split_outside_brackets(text)) {
    if (part.empty()) refuse(text);
    for (const std::string& name : expand_name(part)) names.push_back(name);
  }
  return names;
}

std::vector<int> expand_counts(const std::string& text) {
  std::vector<int> counts;
  for (const std::string& part : split(text, ',')) {
    const auto open = part.find("(x");
    const bool repeated = open != std::string::npos && part.back() == ')';
    const auto count = to_number(part.substr(0, repeated ? open : part.size()));
    const auto times =
        repeated ? to_number(part.substr(open + 2, part.size() - open - 3)) : std::optional<int>(1);
    if (!count || !times) refuse(text);
    counts.insert(counts.end(), static_cast<std::size_t>(*times), *count);
  }
  return counts;
}

std::optional<Hosts> slurm_allocation() {
  const char* nodes = first_set("SLURM_JOB_NODELIST", "SLURM_NODELIST");
  if (std::getenv("SLURM_JOB_ID") == nullptr || nodes == nullptr) return std::nullopt;
  const auto names = expand_node_list(nodes);
  const char* tasks = std::getenv("SLURM_TASKS_PER_NODE");
  const auto counts = tasks != nullptr ? expand_counts(tasks) : std::vector<int>(names.size(), 1);
  TESSERA_CHECK(counts.size() == names.size(), Code::invalid_argument,
                fmt::format("SLURM_TASKS_PER_NODE={} counts {} node(s), SLURM_JOB_NODELIST={} {}",
                            tasks, counts.size(), nodes, names.size()));
  Hosts hosts;
  for (std::size_t i = 0; i < names.size(); ++i) hosts.push_back(whole_host(names[i], counts[i]));
  return hosts;
}

}  // namespace tessera::app
