// SPDX-License-Identifier: Apache-2.0
#include "tessera/planning/machine.hpp"

#include <gtest/gtest.h>

#include "support/expect_error.hpp"
#include "support/temporary_folder.hpp"

namespace tessera::planning {
namespace {

TEST(MachineTest, AFileSaysWhatWasWritten) {
  const test::TemporaryFolder folder;
  const Machine machine = find_machine("h100");
  const Machine again = find_machine(folder.file("machine.json", to_json(machine)));
  EXPECT_EQ(to_json(again), to_json(machine));
}

TEST(MachineTest, WrongFilesAreNamed) {
  const test::TemporaryFolder folder;
  std::string text = to_json(find_machine("a100"));
  const auto expect_refused = [&](const std::string& content, const std::string& word) {
    const std::string file = folder.file("machine.json", content);
    test::expect_error(Code::invalid_config, {word}, [&] { find_machine(file); });
  };
  expect_refused("nonsense", "machine.json");
  expect_refused("{}", "'name' is missing");
  text.replace(text.find("\"memory_bandwidth\": "), 20, "\"memory_bandwidth\": -");
  expect_refused(text, "memory_bandwidth");
  test::expect_error(Code::invalid_argument, {"a100, h100"}, [] { find_machine("a10"); });
}

TEST(MachineTest, NarrowWeightsAreSlower) {
  const Machine machine = find_machine("a100");
  EXPECT_DOUBLE_EQ(machine.flops(DType::bf16, machine.half_width), machine.flops_half / 2);
  EXPECT_LT(machine.flops(DType::fp32, 4096), machine.flops(DType::bf16, 4096));
}

}  // namespace
}  // namespace tessera::planning
