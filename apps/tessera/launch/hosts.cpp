// SPDX-License-Identifier: Apache-2.0
#include "apps/tessera/launch/hosts.hpp"

#include <algorithm>
#include <map>
#include <numeric>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "tessera/base/error.hpp"
#include "tessera/base/nearest_name.hpp"

#include "apps/tessera/launch/text.hpp"

namespace tessera::app {
namespace {

constexpr int kMostSlots = 1 << 16;
constexpr std::string_view kGrammar = "HOST[:SLOT[,SLOT...]][@HOST...], e.g. worker-0@worker-1:0,2";

Host parse_host(std::string_view line, const std::string& place) {
  const auto words = split_words(line);
  const auto equals = words.size() == 2 ? words[1].find('=') : std::string::npos;
  const auto slots = equals == std::string::npos || words[1].substr(0, equals) != "slots"
                         ? std::nullopt
                         : to_number(words[1].substr(equals + 1));
  TESSERA_CHECK(slots && *slots >= 1 && *slots <= kMostSlots, Code::invalid_argument,
                fmt::format("{}: '{}' is not 'HOST slots=N' with N from 1 to {}", place, trim(line),
                            kMostSlots));
  return whole_host(words[0], *slots);
}

// What --include or --exclude says: slots by host, none meaning all.
using Selection = std::map<std::string, std::vector<int>>;

struct Selector {
  std::string option;
  const Hosts& hosts;

  [[noreturn]] void refuse(const std::string& problem) const {
    fail(Code::invalid_argument, fmt::format("{}: {}", option, problem));
  }

  const Host& find(const std::string& name) const {
    std::vector<std::string> names;
    for (const Host& host : hosts) {
      if (host.name == name) return host;
      names.push_back(host.name);
    }
    refuse(fmt::format("there is no host '{}' among {}{}", name, describe(hosts),
                       did_you_mean(name, names)));
  }

  int parse_slot(const Host& host, const std::string& text) const {
    const auto slot = to_number(text);
    if (!slot) refuse(fmt::format("'{}' is not a slot number; the form is {}", text, kGrammar));
    if (std::find(host.slots.begin(), host.slots.end(), *slot) == host.slots.end())
      refuse(fmt::format("host '{}' has no slot {}; it has {}", host.name, *slot,
                         fmt::join(host.slots, ",")));
    return *slot;
  }

  void add(const std::string& node, Selection& selection) const {
    const auto parts = split(node, ':');
    if (parts.size() > 2 || parts[0].empty() || (parts.size() == 2 && parts[1].empty()))
      refuse(fmt::format("'{}' is not understood; the form is {}", node, kGrammar));
    const Host& host = find(parts[0]);
    const bool known = selection.contains(host.name);
    std::vector<int>& slots = selection[host.name];
    if (known && slots.empty() != (parts.size() == 1))
      refuse(fmt::format("'{}' is named whole and with slots: name it once", host.name));
    if (parts.size() == 1) return;
    for (const std::string& slot : split(parts[1], ',')) slots.push_back(parse_slot(host, slot));
  }

  Selection parse(const std::string& text) const {
    Selection selection;
    for (const std::string& node : split(text, '@')) add(node, selection);
    return selection;
  }
};

bool contains(const std::vector<int>& slots, int slot) {
  return slots.empty() || std::find(slots.begin(), slots.end(), slot) != slots.end();
}

}  // namespace

Host whole_host(const std::string& name, int count) {
  Host host{name, std::vector<int>(static_cast<std::size_t>(count))};
  std::iota(host.slots.begin(), host.slots.end(), 0);
  return host;
}

bool counts_from_zero(const Host& host) {
  return host.slots.empty() || host.slots.back() + 1 == static_cast<int>(host.slots.size());
}

int count_ranks(const Hosts& hosts) {
  int ranks = 0;
  for (const Host& host : hosts) ranks += static_cast<int>(host.slots.size());
  return ranks;
}

std::string describe(const Hosts& hosts) {
  std::vector<std::string> parts;
  for (const Host& host : hosts)
    parts.push_back(fmt::format("{} ({})", host.name, host.slots.size()));
  return fmt::format("{}", fmt::join(parts, ", "));
}

Hosts parse_hostfile(std::string_view text, const std::string& source) {
  Hosts hosts;
  std::map<std::string, int> line_of;
  int number = 0;
  for (const std::string& line : split(text, '\n')) {
    const std::string place = fmt::format("{}:{}", source, ++number);
    const std::string content = trim(line.substr(0, line.find('#')));
    if (content.empty()) continue;
    const Host host = parse_host(content, place);
    const auto [first, fresh] = line_of.emplace(host.name, number);
    TESSERA_CHECK(fresh, Code::invalid_argument,
                  fmt::format("{}: host '{}' is in line {} already: one line a host", place,
                              host.name, first->second));
    hosts.push_back(host);
  }
  TESSERA_CHECK(!hosts.empty(), Code::invalid_argument,
                fmt::format("{}: names no host; a line is 'HOST slots=N'", source));
  return hosts;
}

Hosts filter_hosts(const Hosts& hosts, const std::string& include, const std::string& exclude) {
  TESSERA_CHECK(
      include.empty() || exclude.empty(), Code::invalid_argument,
      "--include and --exclude exclude each other: say what to use, or what to leave out");
  if (include.empty() && exclude.empty()) return hosts;
  const bool including = !include.empty();
  const Selector selector{including ? "--include" : "--exclude", hosts};
  const Selection selection = selector.parse(including ? include : exclude);
  Hosts left;
  for (const Host& host : hosts) {
    const auto named = selection.find(host.name);
    Host kept{host.name, {}};
    for (const int slot : host.slots)
      if ((named != selection.end() && contains(named->second, slot)) == including)
        kept.slots.push_back(slot);
    if (!kept.slots.empty()) left.push_back(kept);
  }
  if (left.empty()) selector.refuse(fmt::format("leaves nothing of {}", describe(hosts)));
  return left;
}

Hosts limit_hosts(Hosts hosts, int nodes, int ranks_per_node) {
  if (nodes > 0) {
    const auto wanted = static_cast<std::size_t>(nodes);
    TESSERA_CHECK(wanted <= hosts.size(), Code::invalid_argument,
                  fmt::format("--num-nodes {}: there are only {}: {}; a hostfile (-H) names more",
                              nodes, hosts.size(), describe(hosts)));
    hosts.resize(wanted);
  }
  if (ranks_per_node == 0) return hosts;
  const auto wanted = static_cast<std::size_t>(ranks_per_node);
  for (Host& host : hosts) {
    TESSERA_CHECK(wanted <= host.slots.size(), Code::invalid_argument,
                  fmt::format("--ranks-per-node {}: host '{}' has {} slot(s)", ranks_per_node,
                              host.name, host.slots.size()));
    host.slots.resize(wanted);
  }
  return hosts;
}

}  // namespace tessera::app
