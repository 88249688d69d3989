// SPDX-License-Identifier: Apache-2.0
// tessera launch: starts a program on the hosts of a hostfile or an allocation, with the habits of
// DeepSpeed's launcher, through mpirun or srun.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "tessera/base/cpu_features.hpp"
#include "tessera/base/error.hpp"
#include "tessera/base/file.hpp"
#include "tessera/base/mesh_shape.hpp"
#include "tessera/base/nearest_name.hpp"
#include "tessera/comm/runtime.hpp"
#include "tessera/device/cuda.hpp"

#include "apps/tessera/launch/child.hpp"
#include "apps/tessera/launch/slurm_allocation.hpp"
#include "apps/tessera/launch/text.hpp"
#include "apps/tessera/session.hpp"

namespace tessera::app {
namespace {

// Where DeepSpeed looks when no hostfile is named.
constexpr const char* kUsualHostfile = "/job/hostfile";

struct Arguments {
  std::string hostfile;
  std::string include, exclude;
  int nodes = 0;  // 0: not said
  int ranks_per_node = 0;
  std::string launcher = "auto";
  std::string launcher_arguments;
  std::vector<std::string> prefixes;
  std::vector<std::string> variable_files;
  bool dry_run = false;
  std::vector<std::string> program;
};

// Standard output is the program's.
void say(const std::string& text) {
  fmt::print(stderr, "tessera launch: {}\n", text);
}

bool in_allocation() {
  return std::getenv("SLURM_JOB_ID") != nullptr;
}

bool uses_srun(const Arguments& arguments) {
  if (arguments.launcher == "auto") return in_allocation() && arguments.hostfile.empty();
  return arguments.launcher == "srun" || arguments.launcher == "slurm";
}

Hosts this_host(const Arguments& arguments) {
  const int gpus = cuda_device_count();
  const int places = gpus > 0 ? gpus : available_cores();
  // Nobody said how many places there are, so the ranks may be any number.
  return {
      whole_host("localhost", arguments.ranks_per_node > 0 ? arguments.ranks_per_node : places)};
}

// Where ranks may go; nothing when that is left to srun, outside of an allocation.
std::optional<Hosts> find_hosts(const Arguments& arguments, bool srun) {
  if (!arguments.hostfile.empty())
    return parse_hostfile(read_text(arguments.hostfile), arguments.hostfile);
  if (in_allocation()) return slurm_allocation();
  if (std::filesystem::exists(kUsualHostfile))
    return parse_hostfile(read_text(kUsualHostfile), kUsualHostfile);
  if (srun) return std::nullopt;
  return this_host(arguments);
}

// A step may have more tasks on a node than the job asked for, as far as its cores go.
Hosts with_room(Hosts hosts, int ranks_per_node) {
  if (ranks_per_node > 0)
    for (Host& host : hosts) host = whole_host(host.name, ranks_per_node);
  return hosts;
}

Hosts choose_hosts(const Arguments& arguments, const Hosts& hosts) {
  const bool counted_by_slurm = arguments.hostfile.empty() && in_allocation();
  const Hosts room = counted_by_slurm ? with_room(hosts, arguments.ranks_per_node) : hosts;
  return limit_hosts(filter_hosts(room, arguments.include, arguments.exclude), arguments.nodes,
                     arguments.ranks_per_node);
}

void check_arguments(const Arguments& arguments) {
  TESSERA_CHECK(launcher_size() <= 1, Code::invalid_argument,
                "tessera launch starts the ranks itself: run it once, without mpirun or srun");
  const bool filtered = !arguments.include.empty() || !arguments.exclude.empty();
  const bool limited = arguments.nodes > 0 || arguments.ranks_per_node > 0;
  TESSERA_CHECK(!filtered || !limited, Code::invalid_argument,
                "--include and --exclude name slots, --num-nodes and --ranks-per-node count them: "
                "use one or the other");
}

// A misspelt option stands where the program should.
void check_program(const std::vector<std::string>& program, const std::vector<std::string>& options,
                   const std::vector<std::string>& subcommands) {
  TESSERA_CHECK(!program.empty(), Code::invalid_argument,
                "which program? e.g. tessera launch -H hosts tessera train run.yaml");
  const std::string& name = program[0];
  TESSERA_CHECK(name[0] != '-', Code::invalid_argument,
                fmt::format("there is no option '{}'{}", name,
                            did_you_mean(name.substr(0, name.find('=')), options)));
  const bool is_subcommand =
      std::find(subcommands.begin(), subcommands.end(), name) != subcommands.end();
  TESSERA_CHECK(!is_subcommand, Code::invalid_argument,
                fmt::format("'{}' is a subcommand, and the program comes first: tessera launch … "
                            "tessera {}",
                            name, name));
}

Variables read_variables(const Arguments& arguments) {
  Variables variables;
  const auto files =
      arguments.variable_files.empty() ? default_variable_files() : arguments.variable_files;
  for (const std::string& file : files) {
    const Variables more = parse_variables(read_text(file), file);
    if (!arguments.dry_run) say(fmt::format("{} variable(s) from {}", more.size(), file));
    variables.insert(variables.end(), more.begin(), more.end());
  }
  return variables;
}

Job make_job(const Arguments& arguments, const std::optional<Hosts>& hosts) {
  Job job;
  if (hosts) {
    job.hosts = choose_hosts(arguments, *hosts);
  } else {
    TESSERA_CHECK(arguments.include.empty() && arguments.exclude.empty(), Code::invalid_argument,
                  "--include and --exclude choose among the hosts of a hostfile (-H) or of an "
                  "allocation of Slurm (salloc, sbatch), and there is neither");
    job.nodes = arguments.nodes;
    job.ranks_per_node = arguments.ranks_per_node;
  }
  job.variables = read_variables(arguments);
  std::vector<std::string> prefixes = default_prefixes();
  prefixes.insert(prefixes.end(), arguments.prefixes.begin(), arguments.prefixes.end());
  job.exported = names_with_prefixes(prefixes);
  job.launcher_arguments = split_command(arguments.launcher_arguments);
  job.program = arguments.program;
  return job;
}

CommandLine make_command(const Arguments& arguments) {
  const bool srun = uses_srun(arguments);
  const auto hosts = find_hosts(arguments, srun);
  const Job job = make_job(arguments, hosts);
  if (!arguments.dry_run && !job.hosts.empty())
    say(fmt::format("{} rank(s) on {}", count_ranks(job.hosts), describe(job.hosts)));
  if (srun) return srun_command(job, slurm_allocation().value_or(Hosts{}));
#ifndef OPEN_MPI
  fail(
      Code::not_supported,
      "tessera launch writes the command line of Open MPI's mpirun only, and this program is built "
      "with another MPI: use its mpiexec, or --launcher srun");
#endif
  const char* mpirun = std::getenv("MPIEXEC");
  return mpirun_command(job, mpirun != nullptr ? mpirun : "mpirun");
}

int launch(const Arguments& arguments) {
  check_arguments(arguments);
  const CommandLine command = make_command(arguments);
  if (!arguments.dry_run) return run_child(command);
  std::cout << to_text(command) << "\n";
  return 0;
}

void add_places(CLI::App& sub, Arguments& arguments) {
  sub.add_option("-H,--hostfile", arguments.hostfile,
                 "Hosts, a line 'HOST slots=N' each (default: Slurm's allocation, else "
                 "/job/hostfile if it exists, else this host)")
      ->type_name("FILE");
  sub.add_option("-i,--include", arguments.include,
                 "Use these: HOST[:SLOT[,SLOT...]][@HOST...], e.g. worker-0@worker-1:0,2; slots "
                 "number GPUs, and a host alone means all of its slots")
      ->type_name("HOSTS");
  sub.add_option("-e,--exclude", arguments.exclude, "Use all but these, in the same form")
      ->type_name("HOSTS");
  sub.add_option("--num-nodes,--num_nodes", arguments.nodes, "Use the first N hosts")
      ->check(CLI::Range(1, kMostRanks))
      ->type_name("N");
  sub.add_option("--ranks-per-node,--num_gpus,--num_accelerators", arguments.ranks_per_node,
                 "Use the first N slots of each host")
      ->check(CLI::Range(1, kMostRanks))
      ->type_name("N");
}

void add_launcher(CLI::App& sub, Arguments& arguments) {
  sub.add_option("--launcher", arguments.launcher,
                 "mpirun (openmpi), srun (slurm), or auto: srun inside an allocation of Slurm")
      ->check(CLI::IsMember({"auto", "mpirun", "openmpi", "srun", "slurm"}))
      ->capture_default_str()
      ->type_name("NAME");
  sub.add_option("--launcher-args,--launcher_args", arguments.launcher_arguments,
                 "More options for mpirun or srun, as one word: --launcher-args '--bind-to core'")
      ->type_name("TEXT");
  sub.add_option("--export", arguments.prefixes,
                 "Also pass on variables whose names begin so (repeatable)")
      ->type_name("PREFIX")
      ->allow_extra_args(false);
  sub.add_option("--env-file", arguments.variable_files,
                 "Set the variables of this file, lines NAME=value, for the ranks (repeatable; "
                 "default: .deepspeed_env and .tessera_env of the home folder and of this one)")
      ->type_name("FILE")
      ->allow_extra_args(false);
  sub.add_flag("--dry-run", arguments.dry_run, "Print the command instead of running it");
}

std::vector<std::string> option_names(const CLI::App& sub) {
  std::vector<std::string> names;
  for (const CLI::Option* option : sub.get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  return names;
}

std::vector<std::string> subcommand_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* sub : app.get_subcommands({})) names.push_back(sub->get_name());
  return names;
}

}  // namespace

void add_launch(CLI::App& app, Command& command) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* sub = app.add_subcommand(
      "launch", "Start a program on several hosts, through mpirun or srun: [OPTIONS] PROGRAM ...");
  sub->footer(
      "Options come before PROGRAM; all that follows it is the program's.\n"
      "mpirun is the one in PATH, or $MPIEXEC; it reaches other hosts by ssh, and the program "
      "must\n"
      "be at the same path on all of them. Passed on are variables that begin with TESSERA_, "
      "OMP_,\n"
      "GOMP_, KMP_, NCCL_, UCX_, ONEDNN_, DNNL_, HDF5_, and PATH and LD_LIBRARY_PATH; srun passes "
      "on all.\n"
      "SIGTERM makes the ranks save and stop, like SIGUSR1.\n"
      "Example: tessera launch -H hosts -i worker-0@worker-1:0,2 tessera train run.yaml");
  sub->prefix_command();
  add_places(*sub, *arguments);
  add_launcher(*sub, *arguments);
  sub->callback([&app, &command, arguments, sub] {
    arguments->program = sub->remaining();
    command = [&app, arguments, sub] {
      check_program(arguments->program, option_names(*sub), subcommand_names(app));
      return launch(*arguments);
    };
  });
}

}  // namespace tessera::app
