// SPDX-License-Identifier: Apache-2.0
// The hosts of a job and their slots: hostfiles, and DeepSpeed's grammar to choose among them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tessera::app {

/// A slot is a place for one rank; on machines with GPUs its number is that of the GPU.
struct Host {
  std::string name;
  std::vector<int> slots;  ///< ascending, without repeats

  bool operator==(const Host&) const = default;
};
using Hosts = std::vector<Host>;

/// Slots 0 … count-1.
Host whole_host(const std::string& name, int count);
/// True for slots 0 … n-1: local ranks then are slot numbers.
bool counts_from_zero(const Host& host);
int count_ranks(const Hosts& hosts);
/// "worker-0 (4), worker-1 (2)".
std::string describe(const Hosts& hosts);

/// Lines `HOST slots=N`, with `#` comments. `source` is the file's name in messages. Errors:
/// invalid_argument naming the line for anything else, for a host that comes twice, no host at all.
Hosts parse_hostfile(std::string_view text, const std::string& source);

/// What `include` names, or what is left without what `exclude` names, in the order of `hosts`.
/// Both are DeepSpeed's `HOST[:SLOT[,SLOT…]][@HOST…]`, a host alone meaning all of its slots; ""
/// asks for nothing. Errors: invalid_argument for both at once, a host or slot that `hosts` lacks,
/// bad grammar, and when nothing is left.
Hosts filter_hosts(const Hosts& hosts, const std::string& include, const std::string& exclude);

/// The first `nodes` hosts, and of each the first `ranks_per_node` slots; 0: all. Errors:
/// invalid_argument when there are fewer.
Hosts limit_hosts(Hosts hosts, int nodes, int ranks_per_node);

}  // namespace tessera::app
