// SPDX-License-Identifier: Apache-2.0
// --set path=value.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/support.hpp"

namespace tessera::config {
namespace {

using namespace testing;
using ::testing::HasSubstr;

TEST(Override, ReplacesAnyValue) {
  const RunConfig config =
      read_example({"engine.zero_optimization.stage=2", "run.steps=5e1", "run.checkpoint.keep=7",
                    "model.n_layer=3", "data.train=[a, 'b c']", "comm.transport=mpi",
                    "run.checkpoint={every: 3}", "engine.optimizer.params.lr=1e-2"});
  EXPECT_EQ(config.engine.zero.stage, 2);
  EXPECT_EQ(config.run.steps, 50);
  EXPECT_EQ(config.run.checkpoint.every, 3);
  EXPECT_EQ(config.run.checkpoint.keep, 2);  // the later override replaced the whole section
  EXPECT_EQ(config.data.train, (std::vector<std::string>{"a", "b c"}));
  EXPECT_EQ(config.comm.transport, "mpi");
  EXPECT_EQ(config.engine.optimizer.lr, 1e-2);
  EXPECT_THAT(config.model.json, HasSubstr("\"n_layer\": 3"));
}

TEST(Override, AddsSectionsThatTheFileLacks) {
  const RunConfig config = read("model: m\n", {"data.train=x.txt", "run.steps=3",
                                               "engine.optimizer.params.betas=[0.5, 0.6]"});
  EXPECT_EQ(config.data.train, std::vector<std::string>{"x.txt"});
  EXPECT_EQ(config.engine.optimizer.beta1, 0.5);
}

TEST(Override, TheLastOneWinsAndNullRemoves) {
  EXPECT_EQ(read_example({"run.steps=1", "run.steps=2"}).run.steps, 2);
  const RunConfig config = read_example({"run.minutes=null", "run.seed="});
  EXPECT_FALSE(config.run.minutes.has_value());
  EXPECT_EQ(config.run.seed, 1234u);
}

TEST(Override, TheValueMayHoldEqualsSigns) {
  EXPECT_EQ(read_example({"run.folder=a=b"}).run.folder, "a=b");
}

TEST(Override, OldNamesWork) {
  EXPECT_EQ(read_example({"engine.bfloat16.enabled=false"}).engine.dtype, DType::fp32);
  EXPECT_EQ(read_example({"engine.zero_optimization={prefetch_bucket_size: 5}"})
                .engine.zero.prefetch_bucket_size,
            5);
}

TEST(Override, AModelFolderReplacesAnInlineModelButHasNoKeys) {
  EXPECT_EQ(read_example({"model=folder"}).model.folder, "folder");
  EXPECT_THAT(refusal_of(with_engine("  train_batch_size: 1\n"), {"model.n_layer=2"}),
              HasSubstr("\"some-folder\", not a section that could hold n_layer"));
}

TEST(Override, UnknownPathsNameTheNearest) {
  const auto wrong = [](const std::string& set) { return refusal_of(kRunFile, {set}); };
  EXPECT_THAT(wrong("engine.zero_optimization.stag=2"),
              HasSubstr("--set engine.zero_optimization.stag=2: unknown path "
                        "`engine.zero_optimization.stag`; did you mean "
                        "'engine.zero_optimization.stage'?"));
  EXPECT_THAT(wrong("engine.zero_optimisation.stage=2"),
              HasSubstr("'engine.zero_optimization.stage'?"));
  EXPECT_THAT(wrong("run.sequence_length=2"), HasSubstr("'data.sequence_length'?"));
  EXPECT_THAT(wrong("run.bogus=1"), HasSubstr("known here: attention, checkpoint, "));
  EXPECT_THAT(wrong("run.steps.more=1"), HasSubstr("unknown path `run.steps.more`"));
  EXPECT_THAT(wrong(".=1"), HasSubstr("unknown path"));
}

TEST(Override, MustBeAPathAndAValue) {
  EXPECT_THAT(refusal_of(kRunFile, {"run.steps"}), HasSubstr("it must be path=value"));
  EXPECT_THAT(refusal_of(kRunFile, {"=3"}), HasSubstr("it must be path=value"));
  EXPECT_THAT(refusal_of(kRunFile, {"run.steps=[1"}), HasSubstr("not valid YAML"));
}

}  // namespace
}  // namespace tessera::config
