// SPDX-License-Identifier: Apache-2.0
// What a wrong run file is told: what, where, the value, what would be right, the nearest name.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "config/support.hpp"

namespace tessera::config {
namespace {

using namespace testing;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST(Message, UnknownKeyNamesFileLineAndTheNearestKey) {
  EXPECT_EQ(refusal_of(with_engine("  train_batch_size: 8\n  zero_optimization:\n    stag: 2\n")),
            "invalid configuration: run.yaml:7: unknown key `engine.zero_optimization.stag`; did "
            "you mean 'stage'?");
  EXPECT_THAT(refusal_of("modle: x\n"), HasSubstr("run.yaml:1: unknown key `modle`; did you mean "
                                                  "'model'?"));
  EXPECT_THAT(refusal_of(with_engine("  zero_optimisation: {stage: 1}\n")),
              HasSubstr("`engine.zero_optimisation`; did you mean 'zero_optimization'?"));
}

TEST(Message, KeyInTheWrongSectionIsSentToTheRightOne) {
  EXPECT_THAT(refusal_of("run: {stage: 2}\n"),
              HasSubstr("`run.stage`; did you mean 'engine.zero_optimization.stage'?"));
  EXPECT_THAT(refusal_of("model: m\ntrain_batch_size: 4\n"),
              HasSubstr("did you mean 'engine.train_batch_size'?"));
}

TEST(Message, UnknownKeyLikeNoOtherListsTheKnownOnes) {
  EXPECT_THAT(refusal_of("mesh: {qqqqq: 2}\n"),
              HasSubstr("known here: data, expert, pipeline, sequence, sequence_attention, "
                        "sequence_parallel, tensor"));
}

TEST(Message, ParametersAreCheckedAgainstTheirType) {
  EXPECT_THAT(refusal_of(kRunFile, {"engine.optimizer.params.weigth_decay=1"}),
              HasSubstr("of AdamW; did you mean 'weight_decay'?"));
  EXPECT_THAT(refusal_of(kRunFile, {"engine.scheduler.type=WarmupLR"}),
              HasSubstr("run.yaml:28: unknown key `engine.scheduler.params.total_num_steps` of "
                        "WarmupLR; it belongs to WarmupDecayLR"));
  EXPECT_THAT(refusal_of(kRunFile, {"engine.optimizer.params.max_grad_norm=1"}),
              HasSubstr("use engine.gradient_clipping"));
}

TEST(Message, UnknownTypesNameTheNearest) {
  EXPECT_THAT(refusal_of(kRunFile, {"engine.optimizer.type=AdmW"}), HasSubstr("'AdamW'?"));
  EXPECT_THAT(refusal_of(kRunFile, {"engine.scheduler.type=step"}),
              HasSubstr("known here: constant, WarmupLR, WarmupDecayLR"));
}

TEST(Message, WrongTypesShowValueAndWhatIsExpected) {
  const auto wrong = [](const std::string& set) { return refusal_of(kRunFile, {set}); };
  EXPECT_THAT(wrong("run.steps=many"), HasSubstr("`run.steps` is \"many\"; it must be an integer "
                                                 "≥ 1"));
  EXPECT_THAT(wrong("run.steps=1.5"), HasSubstr("is 1.5; it must be an integer"));
  EXPECT_THAT(wrong("run.steps=\"30\""), HasSubstr("(without quotes)"));
  EXPECT_THAT(wrong("run.steps=true"), HasSubstr("is true"));
  EXPECT_THAT(wrong("run.steps=[3]"), HasSubstr("is [3]"));
  EXPECT_THAT(wrong("comm.checked=yes"), HasSubstr("is \"yes\"; it must be true or false"));
  EXPECT_THAT(wrong("comm.checked=1"), HasSubstr("is 1; it must be true or false"));
  EXPECT_THAT(wrong("data.train=[1, 2]"), HasSubstr("it must be a list of texts"));
  EXPECT_THAT(wrong("data.tokenizer=7"), HasSubstr("is 7; it must be a text (in quotes)"));
  EXPECT_THAT(wrong("engine.bf16=true"), HasSubstr("must be a section with keys like"));
  EXPECT_THAT(wrong("run=3"), HasSubstr("must be a section"));
  EXPECT_THAT(wrong("engine.gradient_clipping={a: 1}"), HasSubstr("is {\"a\": 1}; it must be"));
  EXPECT_THAT(wrong("engine.optimizer.params.lr=.nan"), HasSubstr("must be a number"));
}

TEST(Message, WrongTypeInAFileNamesItsLine) {
  EXPECT_THAT(refusal_of(with_engine("  train_batch_size: 8\n  gradient_clipping: high\n")),
              StartsWith("invalid configuration: run.yaml:6: `engine.gradient_clipping` is "
                         "\"high\"; it must be a number ≥ 0"));
}

TEST(Message, RangesAreChecked) {
  const std::vector<std::string> wrong = {"run.steps=0",
                                          "run.minutes=0",
                                          "run.checkpoint.keep=0",
                                          "run.checkpoint.every=-1",
                                          "data.sequence_length=0",
                                          "data.validation=1",
                                          "data.validation=-0.1",
                                          "run.seed=-1",
                                          "run.threads=0",
                                          "engine.zero_optimization.stage=4",
                                          "engine.gradient_clipping=-1",
                                          "model.attn_pdrop=1",
                                          "model.n_layer=0",
                                          "comm.timeout_seconds=0",
                                          "run.log_every=0",
                                          "engine.zero_optimization.reduce_bucket_size=0",
                                          "engine.optimizer.params.lr=-1",
                                          "engine.optimizer.params.betas=[0.9]",
                                          "engine.optimizer.params.betas=[0.9, 1.0]",
                                          "engine.scheduler.params.warmup_num_steps=0",
                                          "comm.transport=tcp",
                                          "run.recompute=some"};
  for (const std::string& set : wrong) {
    const std::string path = set.substr(0, set.find('='));
    EXPECT_THAT(refusal_of(kRunFile, {set}), AllOf(HasSubstr("`" + path + "`"), HasSubstr("must")))
        << set;
  }
}

TEST(Message, WordsNameTheNearestChoice) {
  EXPECT_THAT(refusal_of(kRunFile, {"run.recompute=ful"}),
              HasSubstr("must be one of none, selective, full; did you mean 'full'?"));
}

TEST(Message, AutoIsRefusedWhereNothingSaysTheValue) {
  EXPECT_THAT(refusal_of(kRunFile, {"engine.optimizer.params.lr=auto"}),
              HasSubstr("nothing else in a run file says the learning rate"));
  EXPECT_THAT(refusal_of(kRunFile, {"run.steps=auto"}), HasSubstr("must be an integer ≥ 1"));
}

TEST(Message, RepeatedKeysNameBothLines) {
  EXPECT_THAT(refusal_of("model: a\ndata: {train: [x]}\nmodel: b\n"),
              HasSubstr("run.yaml:3: key `model` is given twice; the first is in line 1"));
  EXPECT_THAT(refusal_of(with_engine("  bf16:\n    enabled: true\n    enabled: false\n")),
              HasSubstr("run.yaml:7: key `enabled` is given twice"));
  EXPECT_THAT(refusal_of(with_engine("  bf16: {enabled: true}\n  bfloat16: {enabled: true}\n")),
              HasSubstr("`engine.bfloat16` is another name of `engine.bf16`, which line 5"));
}

TEST(Message, RequiredKeysAreNamedWithAnExample) {
  EXPECT_THAT(refusal_of("run: {steps: 1}\n"),
              AllOf(HasSubstr("`model` is missing; for example"),
                    HasSubstr("`data.train` is missing; for example")));
  EXPECT_THAT(refusal_of("model: m\ndata: {train: [x]}\n"), HasSubstr("`run.steps` is missing"));
  EXPECT_THAT(refusal_of("model: {n_layer: 2}\n"), HasSubstr("`model.model_type` is missing"));
  EXPECT_THAT(refusal_of(""), HasSubstr("`model` is missing"));
}

TEST(Message, OnlyOneLengthMayBeGiven) {
  EXPECT_THAT(refusal_of(kRunFile, {"run.epochs=2"}),
              HasSubstr("only one of run.steps, run.tokens and run.epochs may be given; there are "
                        "run.steps (run.yaml:15), run.epochs (--set)"));
  EXPECT_EQ(refusal_of(kRunFile, {"run.epochs=2", "run.steps=null"}), "");
}

TEST(Message, ValuesThatContradictEachOtherAreNamedTogether) {
  EXPECT_THAT(refusal_of(kRunFile, {"data.sequence_length=512"}),
              HasSubstr("`data.sequence_length` is 512, longer than `model.n_positions` 256 "
                        "(run.yaml:6)"));
  EXPECT_THAT(refusal_of(kRunFile, {"model.n_head=7"}),
              HasSubstr("`model.n_head` is 7, which does not divide `model.n_embd` 384"));
  EXPECT_THAT(refusal_of(with_engine("  optimizer: {type: SGD, params: {nesterov: true}}\n")),
              HasSubstr("needs momentum > 0"));
  EXPECT_THAT(refusal_of(with_engine("  scheduler: {type: OneCycle, params: {cycle_min_lr: 1}}\n")),
              HasSubstr("`engine.scheduler.params.cycle_max_lr` is missing"));
}

TEST(Message, GraphsNeedAGpuAndPlacesThatStay) {
  EXPECT_THAT(refusal_of(kRunFile, {"run.cuda_graph=true", "device=cpu"}),
              AllOf(HasSubstr("`run.cuda_graph` is true, but `device` is cpu"),
                    HasSubstr("set device to cuda or auto")));
  EXPECT_THAT(
      refusal_of(kRunFile, {"run.cuda_graph=true", "engine.zero_optimization.stage=2"}),
      AllOf(HasSubstr("`run.cuda_graph` is true, but `engine.zero_optimization.stage` is 2"),
            HasSubstr("use stage 0 or 1")));
}

TEST(Message, TimelinesAreOfStepsThatTheRunHas) {
  for (const char* value : {"3-5", "steps 5-3", "step 0", "steps 3-", "steps 3 - 5", "on"})
    EXPECT_THAT(refusal_of(kRunFile, {std::string("run.timeline=") + value}),
                AllOf(HasSubstr(std::string("`run.timeline` is \"") + value + "\""),
                      HasSubstr("such as `steps 3-5` or `step 3`, or none")))
        << value;
  for (const char* value : {"0", "2.5", "true", "[3, 5]"})
    EXPECT_THAT(refusal_of(kRunFile, {std::string("run.timeline=") + value}),
                HasSubstr("`run.timeline` is"))
        << value;
}

TEST(Message, OnlyOneSixteenBitTypeCanBeOn) {
  EXPECT_THAT(refusal_of(kRunFile, {"engine.fp16.enabled=true"}),
              StartsWith("invalid configuration: --set: `engine.fp16.enabled` and "
                         "`engine.bf16.enabled` are both true"));
}

TEST(Message, LossScalesMustFitEachOther) {
  EXPECT_EQ(refusal_of(with_engine("  train_batch_size: 8\n  fp16: {enabled: true, "
                                   "initial_scale_power: 3, min_loss_scale: 16}\n")),
            "invalid configuration: run.yaml:6: `engine.fp16.min_loss_scale` is 16, above the "
            "initial scale 2^3");
  const RunConfig fixed = read(with_engine(
      "  train_batch_size: 8\n  fp16: {enabled: true, loss_scale: 64, hysteresis: 4}\n"));
  EXPECT_THAT(fixed.notices,
              ::testing::ElementsAre("run.yaml:6: `engine.fp16.hysteresis` and its neighbours have "
                                     "no effect: a loss_scale above 0 stays as it is"));
}

TEST(Message, NodesMustBeListsOfDifferentRanks) {
  EXPECT_THAT(refusal_of(kRunFile, {"comm.nodes=[[0, 1], [1]]"}), HasSubstr("each once"));
  EXPECT_THAT(refusal_of(kRunFile, {"comm.nodes=[0, 1]"}),
              HasSubstr("for example [[0, 1], [2, 3]]"));
  EXPECT_THAT(refusal_of(kRunFile, {"comm.nodes=[[0.5]]"}), HasSubstr("holds 0.5"));
}

TEST(Message, AllProblemsAreShownAtOnce) {
  const std::string text = refusal_of(kRunFile, {"run.steps=0", "mesh.expert=2", "run.seed=x"});
  EXPECT_THAT(text, AllOf(StartsWith("invalid configuration"), HasSubstr("`run.steps`"),
                          HasSubstr("`mesh.expert`"), HasSubstr("`run.seed`")));
  std::string many = "mesh:\n";
  for (int i = 0; i < 12; ++i) many += fmt::format("  zz{}: 1\n", i);
  EXPECT_THAT(refusal_of(many), HasSubstr("and 4 more problems"));
}

TEST(Message, BrokenYamlNamesLineAndColumn) {
  EXPECT_THAT(refusal_of("model: [a\n"),
              AllOf(HasSubstr("run.yaml:"), HasSubstr("not valid YAML"), HasSubstr("column")));
  EXPECT_THAT(refusal_of("a: 1\n---\nb: 2\n"), HasSubstr("holds 2 YAML documents"));
  EXPECT_THAT(refusal_of("- 1\n- 2\n"), HasSubstr("a run file is a section"));
  EXPECT_THAT(refusal_of("? [a]\n: 1\n"), HasSubstr("a key must be a word"));
}

TEST(Message, HostileNestingIsRefused) {
  EXPECT_THAT(refusal_of("model: &a [*a]\n"), Not(""));
  EXPECT_THAT(refusal_of("model: " + std::string(300, '[') + std::string(300, ']')),
              HasSubstr("deep"));
  EXPECT_THAT(refusal_of("model: " + std::string(100'000, '[')), Not(""));
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i)
    bomb += fmt::format("a{0}: &a{0} [*a{1}, *a{1}, *a{1}, *a{1}, *a{1}, *a{1}]\n", i, i - 1);
  EXPECT_THAT(refusal_of(bomb), HasSubstr("more than 200000 values"));
}

TEST(Message, UnreadableFilesAreBadInput) {
  EXPECT_THAT(refusal([] { read_run_file("no-such-file.yaml"); }),
              AllOf(StartsWith("invalid configuration"), HasSubstr("no-such-file.yaml")));
  EXPECT_THAT(
      refusal_of("engine: no-such-file.json\n"),
      AllOf(StartsWith("invalid configuration: run.yaml:1: `engine`"), HasSubstr("No such file")));
}

TEST(Message, BareDeepSpeedConfigurationIsNoRunFile) {
  EXPECT_THAT(refusal_of("train_batch_size: 8\n"), HasSubstr("a DeepSpeed configuration alone"));
}

}  // namespace
}  // namespace tessera::config
