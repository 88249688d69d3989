// SPDX-License-Identifier: Apache-2.0
// What `tessera launch` understands, with DeepSpeed's meanings, and the commands that it writes.
#include <algorithm>
#include <cstdlib>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "apps/tessera/launch/command.hpp"
#include "apps/tessera/launch/slurm_allocation.hpp"
#include "apps/tessera/launch/text.hpp"
#include "support/expect_error.hpp"
#include "support/scoped_variable.hpp"
#include "support/temporary_folder.hpp"

namespace tessera::app {
namespace {

using test::expect_error;
using test::ScopedVariable;

const Hosts kTwo = {whole_host("worker-0", 4), whole_host("worker-1", 4)};

void expect_bad(std::initializer_list<std::string_view> parts, auto&& body) {
  expect_error(Code::invalid_argument, parts, body);
}

TEST(Hostfile, LinesCommentsAndEmptyLines) {
  const Hosts hosts = parse_hostfile(
      "\n  worker-1 slots=2\nworker-2\tslots=2  # the second\n\nlocalhost slots=1\n"
      "123.23.12.10 slots=2\n\n#worker-1 slots=3\n# a comment\n",
      "hosts");
  EXPECT_EQ(hosts, (Hosts{whole_host("worker-1", 2), whole_host("worker-2", 2),
                          whole_host("localhost", 1), whole_host("123.23.12.10", 2)}));
}

TEST(Hostfile, BadLinesAreNamed) {
  const auto parse = [](const char* text) { return [text] { parse_hostfile(text, "hosts"); }; };
  expect_bad({"hosts:3", "worker-1", "line 1"},
             parse("worker-1 slots=2\nb slots=1\nworker-1 slots=1"));
  expect_bad({"hosts:2", "this is bad slots=1"}, parse("a slots=1\nthis is bad slots=1"));
  expect_bad({"hosts:1", "missingslots", "HOST slots=N"}, parse("missingslots"));
  for (const char* line : {"a slots=", "a slots=x", "a slots=0", "a slots=-1", "a slots=2x",
                           "a slot=2", "a slots=99999999999", "a slots=2 max_slots=4"})
    expect_bad({"hosts:1", line}, parse(line));
  expect_bad({"names no host"}, parse(""));
  expect_bad({"names no host"}, parse("# nothing\n\n"));
}

TEST(HostFilter, IncludesAsDeepSpeedDoes) {
  EXPECT_EQ(filter_hosts(kTwo, "", ""), kTwo);
  EXPECT_EQ(filter_hosts(kTwo, "worker-0@worker-1:0,2", ""),
            (Hosts{whole_host("worker-0", 4), {"worker-1", {0, 2}}}));
  EXPECT_EQ(filter_hosts(kTwo, "worker-1:3,0", ""), (Hosts{{"worker-1", {0, 3}}}));
  EXPECT_EQ(filter_hosts(kTwo, "worker-1:1,1", ""), (Hosts{{"worker-1", {1}}}));
  EXPECT_EQ(filter_hosts(kTwo, "worker-0:1@worker-0:0,1", ""), (Hosts{{"worker-0", {0, 1}}}));
  // Ranks follow the hostfile, not the option.
  EXPECT_EQ(filter_hosts(kTwo, "worker-1@worker-0", ""), kTwo);
}

TEST(HostFilter, ExcludesAsDeepSpeedDoes) {
  EXPECT_EQ(filter_hosts(kTwo, "", "worker-1"), (Hosts{whole_host("worker-0", 4)}));
  EXPECT_EQ(filter_hosts(kTwo, "", "worker-0:1,2@worker-1"), (Hosts{{"worker-0", {0, 3}}}));
  EXPECT_EQ(filter_hosts(kTwo, "", "worker-0:0,1@worker-1:3"),
            (Hosts{{"worker-0", {2, 3}}, {"worker-1", {0, 1, 2}}}));
  EXPECT_EQ(filter_hosts(kTwo, "", "worker-0:0,1,2,3"), (Hosts{whole_host("worker-1", 4)}));
}

TEST(HostFilter, ErrorsNameWhatIsThere) {
  const auto filter = [](const char* include, const char* exclude) {
    return [=] { filter_hosts(kTwo, include, exclude); };
  };
  expect_bad({"--include", "--exclude"}, filter("worker-0", "worker-1"));
  for (const bool including : {true, false}) {
    const auto bad = [&](std::initializer_list<std::string_view> parts, const char* text) {
      expect_bad(parts, including ? filter(text, "") : filter("", text));
    };
    bad({including ? "--include" : "--exclude", "no host 'worker-2'", "did you mean",
         "worker-0 (4)"},
        "worker-2");
    bad({"no host 'jeff'", "worker-1"}, "jeff:0");
    bad({"worker-1", "no slot 4", "0,1,2,3"}, "worker-1:4");
    bad({"no slot 99"}, "worker-0:0,99");
    bad({"'x' is not a slot number", "HOST[:SLOT"}, "worker-0:x");
    bad({"'-1' is not a slot number"}, "worker-0:-1");
    bad({"'' is not a slot number"}, "worker-0:1,");
    for (const char* text : {"@", "worker-0@", "worker-0:", ":1", "worker-0:0:1"})
      bad({"is not understood", "HOST[:SLOT"}, text);
    bad({"no host '5'"}, "worker-1@worker-0:1@5");
    bad({"whole and with slots"}, "worker-0@worker-0:1");
    bad({"whole and with slots"}, "worker-0:1@worker-0");
  }
  expect_bad({"leaves nothing"}, filter("", "worker-0@worker-1"));
}

TEST(HostLimits, TakeTheFirstAndCheckThatTheyAreThere) {
  EXPECT_EQ(limit_hosts(kTwo, 0, 0), kTwo);
  EXPECT_EQ(limit_hosts(kTwo, 1, 0), (Hosts{whole_host("worker-0", 4)}));
  EXPECT_EQ(limit_hosts(kTwo, 2, 3), (Hosts{whole_host("worker-0", 3), whole_host("worker-1", 3)}));
  expect_bad({"--num-nodes 3", "only 2"}, [] { limit_hosts(kTwo, 3, 0); });
  expect_bad({"--ranks-per-node 5", "worker-0", "4"}, [] { limit_hosts(kTwo, 0, 5); });
}

TEST(SlurmLists, AreExpanded) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(expand_node_list("node1"), Names{"node1"});
  EXPECT_EQ(
      expand_node_list("gpu[01-03,7],login,a[1-2]b[08-09]x"),
      (Names{"gpu01", "gpu02", "gpu03", "gpu7", "login", "a1b08x", "a1b09x", "a2b08x", "a2b09x"}));
  EXPECT_EQ(expand_node_list("n[98-101]"), (Names{"n98", "n99", "n100", "n101"}));
  EXPECT_EQ(expand_counts("2(x3),1"), (std::vector<int>{2, 2, 2, 1}));
  EXPECT_EQ(expand_counts("4"), std::vector<int>{4});
  for (const char* text : {"a[1", "a]1[", "a[3-1]", "a[x]", "a[1-2-3]", "a,,b", ""})
    expect_bad({"not a list"}, [&] { expand_node_list(text); });
  for (const char* text : {"", "x", "2(x)", "2(xy)", "2,,3"})
    expect_bad({"not a list"}, [&] { expand_counts(text); });
}

TEST(SlurmLists, TheAllocationIsReadFromTheEnvironment) {
  const ScopedVariable job("SLURM_JOB_ID", nullptr);
  EXPECT_EQ(slurm_allocation(), std::nullopt);
  const ScopedVariable id("SLURM_JOB_ID", "7");
  const ScopedVariable nodes("SLURM_JOB_NODELIST", "node[1-2]");
  {
    const ScopedVariable tasks("SLURM_TASKS_PER_NODE", "2,1");
    EXPECT_EQ(slurm_allocation(), (Hosts{whole_host("node1", 2), whole_host("node2", 1)}));
  }
  const ScopedVariable tasks("SLURM_TASKS_PER_NODE", "2");
  expect_bad({"SLURM_TASKS_PER_NODE=2", "node[1-2]"}, [] { slurm_allocation(); });
}

TEST(VariableFiles, AreNamesWithValues) {
  EXPECT_EQ(parse_variables("# ranks\n\nA=1\n B_2 = x y = z \nC=\"quoted text\"\nD=\n", "env"),
            (Variables{{"A", "1"}, {"B_2", "x y = z"}, {"C", "quoted text"}, {"D", ""}}));
  expect_bad({"env:2", "B"}, [] { parse_variables("A=1\nB\n", "env"); });
  expect_bad({"env:1", "2A=1"}, [] { parse_variables("2A=1", "env"); });
  expect_bad({"env:1"}, [] { parse_variables("=1", "env"); });
}

TEST(VariableFiles, ThoseOfTheHomeFolderAndOfThisOneAreRead) {
  const test::TemporaryFolder home;
  const ScopedVariable home_variable("HOME", home.path().c_str());
  const ScopedVariable deepspeed("DS_ENV_FILE", "ours.env");
  EXPECT_TRUE(default_variable_files().empty());
  home.file(".tessera_env", "A=1");
  home.file(".deepspeed_env", "A=2");  // another name was asked for
  home.file("ours.env", "A=3");
  EXPECT_EQ(default_variable_files(),
            (std::vector<std::string>{home / "ours.env", home / ".tessera_env"}));
}

TEST(VariableFiles, NamesAreChosenByPrefix) {
  const ScopedVariable one("TESSERA_TEST_ONE", "1"), two("TESSERA_TEST_TWO", "2");
  EXPECT_EQ(names_with_prefixes({"TESSERA_TEST_"}),
            (std::vector<std::string>{"TESSERA_TEST_ONE", "TESSERA_TEST_TWO"}));
}

TEST(ShellWords, AreSplitAndQuoted) {
  using Words = std::vector<std::string>;
  EXPECT_EQ(split_command("  --mca a 'b c' d\\ e \"f 'g\" ''"),
            (Words{"--mca", "a", "b c", "d e", "f 'g", ""}));
  EXPECT_EQ(split_command(""), Words{});
  expect_bad({"does not end"}, [] { split_command("a 'b"); });
  EXPECT_EQ(quote("a=b/c:1,2"), "a=b/c:1,2");
  EXPECT_EQ(quote("it's"), "'it'\\''s'");
  EXPECT_EQ(quote(""), "''");
}

class Commands : public ::testing::Test {
 protected:
  Commands() {
    job.hosts = kTwo;
    job.program = {"tessera", "train", "run file.yaml"};
  }
  static std::string words(const CommandLine& command) {
    return fmt::format("{}", fmt::join(command.words, " "));
  }

  ScopedVariable cores{"SLURM_CPUS_PER_TASK", nullptr}, type{"SLURM_MPI_TYPE", nullptr};
  ScopedVariable usual_fence{"SLURM_PMIX_FENCE", nullptr};
  ScopedVariable policy{"OMPI_MCA_hwloc_base_binding_policy", nullptr};
  Job job;
};

TEST_F(Commands, MpirunNamesHostsAndVariables) {
  job.exported = {"OMP_NUM_THREADS", "PATH"};
  job.variables = {{"A", "it's"}, {"PATH", "/bin"}};
  job.launcher_arguments = {"--tag-output"};
  const CommandLine command = mpirun_command(job, "mpirun");
  EXPECT_EQ(words(command),
            "mpirun --tag-output -n 8 --host worker-0:4,worker-1:4 -x A -x OMP_NUM_THREADS -x PATH "
            "tessera train run file.yaml");
  const std::string text = to_text(command);
  EXPECT_TRUE(text.starts_with("A='it'\\''s' PATH=/bin OMPI_MCA_hwloc_base_binding_policy=none "))
      << text;
  EXPECT_TRUE(text.ends_with(" tessera train 'run file.yaml'")) << text;
}

TEST_F(Commands, MpirunShowsEachHostItsSlots) {
  job.hosts = filter_hosts(kTwo, "worker-0:0,1@worker-1:0,2", "");
  job.program = {"p"};
  EXPECT_EQ(
      words(mpirun_command(job, "mpirun")),
      "mpirun -n 2 --host worker-0:2 p : -n 2 --host worker-1:2 -x CUDA_VISIBLE_DEVICES=0,2 p");
}

TEST_F(Commands, BindingThatTheUserAskedForStays) {
  EXPECT_EQ(mpirun_command(job, "mpirun").variables.size(), 2u);
  job.launcher_arguments = {"--bind-to", "core"};
  EXPECT_TRUE(mpirun_command(job, "mpirun").variables.empty());
}

TEST_F(Commands, SrunInAnAllocation) {
  job.program = {"p"};
  EXPECT_EQ(words(srun_command(job, kTwo)),
            "srun --mpi=pmix --kill-on-bad-exit=1 --export=ALL --nodes=2 --ntasks=8 p");
  const Variables ring = {{"SLURM_PMIX_FENCE", "ring"}};
  EXPECT_EQ(srun_command(job, kTwo).variables, ring);
  const Hosts uneven = {whole_host("a", 2), whole_host("b", 1)};
  job.hosts = uneven;  // as Slurm itself made it
  EXPECT_EQ(words(srun_command(job, uneven)),
            "srun --mpi=pmix --kill-on-bad-exit=1 --export=ALL --nodes=2 --ntasks=3 p");
  const ScopedVariable some("SLURM_CPUS_PER_TASK", "12"), pmi("SLURM_MPI_TYPE", "cray_shasta");
  job.hosts = {whole_host("worker-1", 3)};
  EXPECT_EQ(words(srun_command(job, kTwo)),
            "srun --kill-on-bad-exit=1 --export=ALL --cpus-per-task=12 --nodes=1 --ntasks=3 "
            "--ntasks-per-node=3 --nodelist=worker-1 p");
  EXPECT_TRUE(srun_command(job, kTwo).variables.empty());
  const ScopedVariable fence("SLURM_PMIX_FENCE", "tree"), pmix("SLURM_MPI_TYPE", "pmix_v4");
  EXPECT_TRUE(srun_command(job, kTwo).variables.empty());
}

TEST_F(Commands, SrunTakesTheSameSlotsEverywhere) {
  job.hosts = filter_hosts(kTwo, "worker-0:1,3@worker-1:1,3", "");
  const CommandLine command = srun_command(job, kTwo);
  EXPECT_EQ(command.variables,
            (Variables{{"SLURM_PMIX_FENCE", "ring"}, {"CUDA_VISIBLE_DEVICES", "1,3"}}));
  job.hosts = filter_hosts(kTwo, "worker-0@worker-1:0,2", "");
  expect_error(Code::not_supported, {"worker-0 (4), worker-1 (2)", "--launcher mpirun"},
               [&] { srun_command(job, kTwo); });
}

TEST_F(Commands, SrunOutsideOfAnAllocationLetsSlurmChoose) {
  job.hosts.clear();
  job.nodes = 2;
  job.ranks_per_node = 8;
  job.program = {"p"};
  EXPECT_EQ(words(srun_command(job, {})),
            "srun --mpi=pmix --kill-on-bad-exit=1 --export=ALL --nodes=2 --ntasks-per-node=8 p");
}

}  // namespace
}  // namespace tessera::app
