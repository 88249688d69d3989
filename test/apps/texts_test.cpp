// SPDX-License-Identifier: Apache-2.0
// The man page and the completions that the program writes of itself.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/program.hpp"

namespace tessera::test {
namespace {

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(Manual, HasEverySubcommandAndOption) {
  const Outcome manual = tessera("manual");
  ASSERT_EQ(manual.exit_code, 0) << manual.error;
  EXPECT_TRUE(manual.out.starts_with(".TH TESSERA 1"));
  for (const char* part :
       {".SS train\n", ".SS launch\n", "\\fB\\-H\\fR, \\fB\\-\\-hostfile\\fR \\fIFILE\\fR",
        "(one of auto, mpirun, openmpi, srun, slurm) [auto]", ".SH SIGNALS"})
    EXPECT_TRUE(contains(manual.out, part)) << part;
  EXPECT_FALSE(contains(manual.out, "markdown")) << "a hidden option";
  const Outcome checked = run_shell(
      fmt::format("command -v groff >/dev/null || exit 0; '{}' manual | groff -man -ww -Tutf8 2>&1 "
                  ">/dev/null",
                  TESSERA_PROGRAM));
  EXPECT_EQ(checked.exit_code, 0);
  EXPECT_EQ(checked.out + checked.error, "");
}

// What bash offers for the last of `words`.
std::string completed(const std::string& words) {
  return run_shell(fmt::format("bash -c 'source <({} completion bash); COMP_WORDS=({}); "
                               "COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _tessera; echo "
                               "${{COMPREPLY[@]}}'",
                               TESSERA_PROGRAM, words))
      .out;
}

TEST(Completion, BashOffersSubcommandsOptionsAndChoices) {
  EXPECT_EQ(completed("tessera tr"), "train\n");
  EXPECT_EQ(completed("tessera train --re"), "--resume\n");
  EXPECT_EQ(completed("tessera generate --dtype \"\""), "fp32 bf16 fp16\n");
  EXPECT_EQ(completed("tessera launch --launcher s"), "srun slurm\n");
  EXPECT_EQ(completed("tessera train --steps \"\""), "\n");
  const TemporaryFolder folder;
  folder.file("step-1.h5", "");
  EXPECT_EQ(completed("tessera inspect " + (folder / "st")), folder / "step-1.h5\n");
}

TEST(Completion, ZshTakesItsScript) {
  const Outcome script = tessera("completion zsh");
  EXPECT_TRUE(script.out.starts_with("#compdef tessera\n")) << script.error;
  EXPECT_TRUE(contains(script.out, "'*--launcher[")) << script.out;
  EXPECT_TRUE(contains(script.out, ":NAME:(auto mpirun openmpi srun slurm)'"));
  const Outcome checked = run_shell(fmt::format(
      "command -v zsh >/dev/null || exit 0; '{}' completion zsh | zsh -n", TESSERA_PROGRAM));
  EXPECT_EQ(checked.exit_code, 0) << checked.error;
  EXPECT_EQ(tessera("completion fish").exit_code, 2);
}

}  // namespace
}  // namespace tessera::test
