// SPDX-License-Identifier: Apache-2.0
// `tessera launch` as a user runs it: on this host, what it passes on, how a job is stopped.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/program.hpp"
#include "support/tiny_run.hpp"

namespace tessera::test {
namespace {

// mpirun as tests need it, through the variable by which a site would name its own.
std::string launch(const std::string& arguments) {
  return fmt::format("MPIEXEC='{}' '{}' launch {}", TESSERA_MPIRUN, TESSERA_PROGRAM, arguments);
}

class LaunchTest : public ::testing::Test {
 protected:
  TemporaryFolder folder;
};

TEST_F(LaunchTest, StartsRanksWithTheirVariables) {
  folder.file("env", "TESSERA_SAID='a b'\n");
  const Outcome outcome = run_shell(launch(
      fmt::format("--ranks-per-node 3 --env-file {} sh -c 'echo rank $OMPI_COMM_WORLD_RANK of "
                  "$OMPI_COMM_WORLD_SIZE hears $TESSERA_SAID'",
                  folder / "env")));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.error;
  for (int rank = 0; rank < 3; ++rank)
    EXPECT_NE(outcome.out.find(fmt::format("rank {} of 3 hears a b\n", rank)), std::string::npos)
        << outcome.out;
  EXPECT_NE(outcome.error.find("3 rank(s) on localhost (3)"), std::string::npos) << outcome.error;
}

TEST_F(LaunchTest, ShowsOnlyTheChosenSlots) {
  folder.file("hosts", "localhost slots=4\n");
  const Outcome outcome = run_shell(launch(fmt::format(
      "-H {} -i localhost:1,3 sh -c 'echo sees $CUDA_VISIBLE_DEVICES'", folder / "hosts")));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.error;
  EXPECT_EQ(outcome.out, "sees 1,3\nsees 1,3\n");
}

TEST_F(LaunchTest, GivesBackTheExitCode) {
  EXPECT_EQ(run_shell(launch("--ranks-per-node 1 sh -c 'exit 7'")).exit_code, 7);
  const Outcome missing =
      run_shell(fmt::format("MPIEXEC=/nonexistent/mpirun '{}' launch true", TESSERA_PROGRAM));
  EXPECT_EQ(missing.exit_code, 2);
  EXPECT_NE(missing.error.find("cannot start '/nonexistent/mpirun'"), std::string::npos)
      << missing.error;
}

TEST_F(LaunchTest, PrintsTheCommandInsteadOfRunningIt) {
  const Outcome outcome = run_shell(
      fmt::format("'{}' launch --dry-run --launcher srun --num-nodes 2 --ranks-per-node 4 p 'a b'",
                  TESSERA_PROGRAM));
  EXPECT_EQ(outcome.exit_code, 0) << outcome.error;
  EXPECT_NE(outcome.out.find("srun --mpi=pmix"), std::string::npos) << outcome.out;
  EXPECT_TRUE(outcome.out.ends_with(" --nodes=2 --ntasks-per-node=4 p 'a b'\n")) << outcome.out;
}

TEST_F(LaunchTest, ExplainsMistakes) {
  const std::pair<const char*, const char*> mistakes[] = {
      {"--hostfil h p", "did you mean '--hostfile'"},
      {"train run.yaml", "tessera train"},
      {"", "which program"},
      {"--num-nodes 1 -i localhost p", "use one or the other"},
      {"--ranks-per-node 1 -e localhost p", "use one or the other"},
      {"--num-nodes 2 p", "a hostfile (-H) names more"},
      {"-H /nonexistent p", "/nonexistent"},
      {"--launcher pdsh p", "pdsh"},
      {"--launcher srun -i a p", "allocation of Slurm"},
  };
  for (const auto& [arguments, words] : mistakes) {
    const Outcome outcome = tessera(fmt::format("launch {}", arguments));
    EXPECT_EQ(outcome.exit_code, 2) << arguments;
    EXPECT_NE((outcome.error + outcome.out).find(words), std::string::npos) << outcome.error;
  }
  const Outcome inside = tessera("launch true", 2);
  EXPECT_EQ(inside.exit_code, 2);
  EXPECT_NE(inside.error.find("run it once"), std::string::npos) << inside.error;
}

// Open MPI's mpirun alone would kill the ranks on SIGTERM.
TEST_F(LaunchTest, SigtermSavesTheRun) {
  const std::string run = folder / "run";
  const std::string train = fmt::format(
      "--ranks-per-node 2 '{}' train {} --set run.steps=100000 --set "
      "engine.scheduler.params.total_num_steps=100000",
      TESSERA_PROGRAM, tiny_run(folder, "run"));
  const Outcome outcome =
      run_shell(fmt::format("{} & pid=$!; for i in $(seq 200); do grep -q 'step ' '{}/log.txt' "
                            "2>/dev/null && break; sleep "
                            "0.1; done; kill -TERM $pid; wait $pid",
                            launch(train), run));
  EXPECT_EQ(outcome.exit_code, 0) << outcome.out << outcome.error;
  EXPECT_TRUE(std::filesystem::exists(run + "/REQUEUE"));
  const int steps = read_json(run + "/summary.json")["steps"];
  EXPECT_TRUE(std::filesystem::exists(fmt::format("{}/checkpoints/step-{:08}.h5", run, steps)));
}

}  // namespace
}  // namespace tessera::test
