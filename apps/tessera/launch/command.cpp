// SPDX-License-Identifier: Apache-2.0
#include "apps/tessera/launch/command.hpp"

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "tessera/base/error.hpp"

#include "apps/tessera/launch/text.hpp"

namespace tessera::app {
namespace {

using Words = std::vector<std::string>;

void append(Words& words, const Words& more) {
  words.insert(words.end(), more.begin(), more.end());
}

// Hosts beside each other that one part of mpirun's command can name.
std::vector<Hosts> parts_of(const Hosts& hosts) {
  std::vector<Hosts> parts;
  for (const Host& host : hosts) {
    const bool joins =
        !parts.empty() && counts_from_zero(host) && counts_from_zero(parts.back()[0]);
    if (!joins) parts.emplace_back();
    parts.back().push_back(host);
  }
  return parts;
}

std::string visible_devices(const Host& host) {
  return fmt::format("CUDA_VISIBLE_DEVICES={}", fmt::join(host.slots, ","));
}

Words mpirun_part(const Job& job, const Hosts& hosts) {
  Words places;
  for (const Host& host : hosts)
    places.push_back(fmt::format("{}:{}", host.name, host.slots.size()));
  Words words = {"-n", std::to_string(count_ranks(hosts)), "--host",
                 fmt::format("{}", fmt::join(places, ","))};
  Words names = job.exported;
  for (const auto& [name, value] : job.variables) names.push_back(name);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  for (const std::string& name : names) append(words, {"-x", name});
  if (!counts_from_zero(hosts[0])) append(words, {"-x", visible_devices(hosts[0])});
  append(words, job.program);
  return words;
}

bool mentions(const Words& words, const std::string& option) {
  return std::find(words.begin(), words.end(), option) != words.end();
}

// Ranks have threads, and Open MPI binds one or two ranks to one core each. Not on the command
// line, where a second --bind-to of the user's would be an error.
void leave_unbound(const Job& job, Variables& variables) {
  if (mentions(job.launcher_arguments, "--bind-to") || mentions(job.launcher_arguments, "-bind-to"))
    return;
  for (const char* name :
       {"OMPI_MCA_hwloc_base_binding_policy", "PRTE_MCA_hwloc_default_binding_policy"})
    if (std::getenv(name) == nullptr) variables.emplace_back(name, "none");
}

bool same_slots(const Hosts& hosts) {
  return std::all_of(hosts.begin(), hosts.end(),
                     [&](const Host& host) { return host.slots == hosts[0].slots; });
}

std::string list_names(const Hosts& hosts) {
  Words names;
  for (const Host& host : hosts) names.push_back(host.name);
  return fmt::format("{}", fmt::join(names, ","));
}

Words srun_places(const Job& job, const Hosts& allocation) {
  if (job.hosts.empty()) {
    Words words;
    if (job.nodes > 0) words.push_back(fmt::format("--nodes={}", job.nodes));
    if (job.ranks_per_node > 0)
      words.push_back(fmt::format("--ntasks-per-node={}", job.ranks_per_node));
    return words;
  }
  Words words = {fmt::format("--nodes={}", job.hosts.size()),
                 fmt::format("--ntasks={}", count_ranks(job.hosts))};
  if (job.hosts == allocation) return words;
  TESSERA_CHECK(same_slots(job.hosts), Code::not_supported,
                fmt::format("srun starts equally many ranks on every node, and these differ: {}. "
                            "Choose the same slots everywhere, or take --launcher mpirun",
                            describe(job.hosts)));
  words.push_back(fmt::format("--ntasks-per-node={}", job.hosts[0].slots.size()));
  words.push_back("--nodelist=" + list_names(job.hosts));
  return words;
}

}  // namespace

CommandLine mpirun_command(const Job& job, const std::string& mpirun) {
  CommandLine command{job.variables, {mpirun}};
  leave_unbound(job, command.variables);
  append(command.words, job.launcher_arguments);
  const auto parts = parts_of(job.hosts);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) command.words.push_back(":");
    append(command.words, mpirun_part(job, parts[i]));
  }
  return command;
}

CommandLine srun_command(const Job& job, const Hosts& allocation) {
  CommandLine command{job.variables, {"srun"}};
  const char* type = std::getenv("SLURM_MPI_TYPE");
  if (type == nullptr) command.words.push_back("--mpi=pmix");
  // Slurm 22.05's tree of nodes lets MPI_Init end before all nodes are there (doc/slurm.md).
  if ((type == nullptr || std::string_view(type).starts_with("pmix")) &&
      std::getenv("SLURM_PMIX_FENCE") == nullptr)
    command.variables.emplace_back("SLURM_PMIX_FENCE", "ring");
  append(command.words, {"--kill-on-bad-exit=1", "--export=ALL"});
  // Since Slurm 22.05 a step does not take this over from its job.
  if (const char* cores = std::getenv("SLURM_CPUS_PER_TASK"))
    command.words.push_back(fmt::format("--cpus-per-task={}", cores));
  append(command.words, srun_places(job, allocation));
  append(command.words, job.launcher_arguments);
  append(command.words, job.program);
  if (!job.hosts.empty() && !counts_from_zero(job.hosts[0]))
    command.variables.emplace_back("CUDA_VISIBLE_DEVICES",
                                   fmt::format("{}", fmt::join(job.hosts[0].slots, ",")));
  return command;
}

std::string to_text(const CommandLine& command) {
  Words words;
  for (const auto& [name, value] : command.variables) words.push_back(name + "=" + quote(value));
  for (const std::string& word : command.words) words.push_back(quote(word));
  return fmt::format("{}", fmt::join(words, " "));
}

}  // namespace tessera::app
