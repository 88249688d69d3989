// SPDX-License-Identifier: Apache-2.0
// The program as a user runs it: what it writes, how it continues, what it says to bad input.
#include "support/program.hpp"

#include <csignal>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tessera/checkpoint/safetensors.hpp"

#include "support/tiny_model.hpp"

namespace tessera::test {
namespace {

constexpr const char* kText = TESSERA_TEST_DATA "/text/tinyshakespeare.txt";

class ProgramTest : public ::testing::Test {
 protected:
  ProgramTest() { setenv("TESSERA_CACHE", (folder / "cache").c_str(), 1); }

  // A run file of a model that trains in a moment.
  std::string run_file(const std::string& name, const std::string& extra = "") {
    const std::string path = folder / (name + ".yaml");
    spit(
        path,
        fmt::format(
            R"(model: {{model_type: gpt2, n_layer: 2, n_embd: 32, n_head: 2, n_positions: 32, vocab_size: auto}}
data: {{train: ["{}"], validation: 0.05, tokenizer: bytes, sequence_length: 32}}
run: {{folder: "{}", steps: 6, seed: 7, log_every: 1, checkpoint: {{every: 0, keep: 2}}, validate: {{every: 3, batches: 2}}}}
engine:
  train_batch_size: 8
  optimizer: {{type: AdamW, params: {{lr: 1e-3}}}}
  scheduler: {{type: WarmupDecayLR, params: {{warmup_num_steps: 2, total_num_steps: 6}}}}
  zero_optimization: {{stage: 3}}
{})",
            kText, folder / name, extra));
    return path;
  }

  static std::vector<nlohmann::json> without_times(std::vector<nlohmann::json> lines) {
    for (auto& line : lines)
      for (const char* key : {"seconds", "tokens_per_second"}) line.erase(key);
    return lines;
  }

  void expect_bad_input(const std::string& arguments, const std::vector<std::string>& words) {
    const Outcome outcome = tessera(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.error;
    EXPECT_TRUE(outcome.error.starts_with("error: ")) << outcome.error;
    for (const std::string& word : words)
      EXPECT_NE(outcome.error.find(word), std::string::npos)
          << word << " is not in: " << outcome.error;
  }

  TemporaryFolder folder;
};

TEST_F(ProgramTest, AnEmptyPipelineIsToldWhatFillsIt) {
  const std::string train = "train " + run_file("a") + " --steps 1 --set mesh.pipeline=2 " +
                            "--set engine.zero_optimization.stage=1";
  const Outcome outcome = tessera(train, 2);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.error;
  EXPECT_NE(outcome.out.find("bubble 50.0 % if all stages take as long; 11.1 % in 8 micro-batches "
                             "(engine.train_micro_batch_size_per_gpu: 1)\n  stage 0: "),
            std::string::npos)
      << outcome.out;
  const Outcome filled = tessera(train + " --set engine.train_micro_batch_size_per_gpu=1", 2);
  EXPECT_NE(filled.out.find("bubble 11.1 % if all stages take as long\n  stage 0: "),
            std::string::npos)
      << filled.out;
}

TEST_F(ProgramTest, TrainingWritesTheRunsFolder) {
  const std::string file = run_file("a");
  const Outcome outcome = tessera("train " + file, 2);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.error;
  EXPECT_NE(outcome.out.find("tokens/s"), std::string::npos) << outcome.out;
  const auto metrics = read_json_lines(folder / "a/metrics.jsonl");
  ASSERT_EQ(metrics.size(), 8u);  // 6 steps and 2 validations
  for (const char* key : {"step", "loss", "lr", "grad_norm", "tokens", "seconds",
                          "tokens_per_second", "loss_scale", "skipped"})
    EXPECT_TRUE(metrics[0].contains(key)) << key;
  EXPECT_TRUE(metrics.back().contains("validation_loss"));
  EXPECT_LT(metrics[6]["loss"], metrics[0]["loss"]);
  const auto summary = read_json(folder / "a/summary.json");
  for (const char* key : {"ranks",
                          "mesh",
                          "nodes",
                          "threads_per_rank",
                          "isa",
                          "transport",
                          "parameters",
                          "layout",
                          "steps",
                          "tokens",
                          "seconds",
                          "tokens_per_second",
                          "final_loss",
                          "validation_loss",
                          "weights_checksum",
                          "traffic",
                          "memory",
                          "model_flops",
                          "flops_per_second",
                          "skipped_steps",
                          "loss_scale"})
    EXPECT_TRUE(summary.contains(key)) << key;
  std::int64_t padded = 0;
  for (const auto& unit : summary["layout"]["units"]) padded += unit["padded"].get<std::int64_t>();
  // Stage 3 on 2 ranks in fp32: 2 gathers and 1 reduce-scatter of everything, each sends (N - 1) x
  // 4 bytes x elements.
  EXPECT_EQ(summary["traffic"]["all_gather"]["bytes"], 6 * 2 * padded * 4);
  EXPECT_EQ(summary["traffic"]["reduce_scatter"]["bytes"], 6 * padded * 4);
  EXPECT_EQ(summary["traffic"]["all_reduce"]["bytes"], 0);
  EXPECT_EQ(summary["tokens"], 6 * 8 * 32);
  EXPECT_FALSE(slurp(folder / "a/log.txt").empty());
  EXPECT_TRUE(std::filesystem::exists(folder / "a/checkpoints/step-00000006.h5"));

  const Outcome again = tessera("train " + file, 2);
  EXPECT_EQ(again.exit_code, 0);
  EXPECT_NE(again.out.find("done already"), std::string::npos) << again.out;
  EXPECT_EQ(read_json_lines(folder / "a/metrics.jsonl"), metrics);
}

TEST_F(ProgramTest, ContinuingAfterAnyStepRepeatsTheUninterruptedRun) {
  const std::string dropout =
      "--set model.resid_pdrop=0.1 --set model.embd_pdrop=0.1 --set model.attn_pdrop=0.1 ";
  ASSERT_EQ(tessera("train " + dropout + run_file("whole"), 2).exit_code, 0);
  const auto expected = without_times(read_json_lines(folder / "whole/metrics.jsonl"));
  const auto checksum = read_json(folder / "whole/summary.json")["weights_checksum"];
  for (int stop = 1; stop < 6; stop += 2) {
    const std::string name = fmt::format("stopped{}", stop);
    const std::string file = run_file(name);
    ASSERT_EQ(tessera(fmt::format("train {} {} --steps {}", dropout, file, stop), 2).exit_code, 0);
    const Outcome rest = tessera("train " + dropout + file, 2);
    ASSERT_EQ(rest.exit_code, 0) << rest.error;
    EXPECT_NE(rest.out.find("continuing from"), std::string::npos);
    EXPECT_EQ(without_times(read_json_lines(folder / (name + "/metrics.jsonl"))), expected) << stop;
    EXPECT_EQ(read_json(folder / (name + "/summary.json"))["weights_checksum"], checksum) << stop;
  }
}

TEST_F(ProgramTest, StagesAndTransportsGiveTheSameWeights) {
  std::vector<nlohmann::json> checksums;
  for (int stage = 0; stage <= 3; ++stage)
    for (const char* transport : {"shm", "mpi"}) {
      const std::string name = fmt::format("{}{}", transport, stage);
      const Outcome outcome = tessera(
          fmt::format("train {} --set engine.zero_optimization.stage={} --set comm.transport={}",
                      run_file(name), stage, transport),
          2);
      ASSERT_EQ(outcome.exit_code, 0) << outcome.error;
      checksums.push_back(read_json(folder / (name + "/summary.json"))["weights_checksum"]);
      EXPECT_EQ(checksums.back(), checksums.front()) << name;
    }
}

TEST_F(ProgramTest, ResolvedConfigurationRepeatsTheRun) {
  ASSERT_EQ(tessera("train " + run_file("a")).exit_code, 0);
  const Outcome outcome =
      tessera(fmt::format("train {} --set run.folder={}", folder / "a/config.yaml", folder / "b"));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.error;
  EXPECT_EQ(read_json(folder / "a/summary.json")["weights_checksum"],
            read_json(folder / "b/summary.json")["weights_checksum"]);
}

TEST_F(ProgramTest, ASignalSavesAndAsksForARequeue) {
  const std::string file = run_file("signal");
  const std::string program = TESSERA_PROGRAM;
  const Outcome outcome = run_shell(fmt::format(
      "'{}' train {} --set run.steps=100000 --set engine.scheduler.params.total_num_steps=100000 & "
      "pid=$!; "
      "for i in $(seq 100); do grep -q 'step ' '{}' 2>/dev/null && break; sleep 0.1; done; "
      "kill -USR1 $pid; wait $pid",
      program, file, folder / "signal/log.txt"));
  EXPECT_EQ(outcome.exit_code, 0) << outcome.error;
  EXPECT_TRUE(std::filesystem::exists(folder / "signal/REQUEUE"));
  const auto summary = read_json(folder / "signal/summary.json");
  EXPECT_TRUE(std::filesystem::exists(
      folder / fmt::format("signal/checkpoints/step-{:08}.h5", summary["steps"].get<int>())));
}

TEST_F(ProgramTest, LogitsAgreeWithPyTorch) {
  const TinyModel tiny;
  const auto ids = tiny.batch(0, 0, 2).ids;
  nlohmann::json rows = nlohmann::json::array({nlohmann::json::array(), nlohmann::json::array()});
  for (std::int64_t i = 0; i < ids.numel(); ++i)
    rows[static_cast<std::size_t>(i / TinyModel::kPositions)].push_back(ids.as<std::int32_t>()[i]);
  spit(folder / "ids.json", rows.dump());
  const auto expected = tiny.doubles("logits.fp64");
  const double allowed = 2 * tiny.doubles("logits_max_error.fp32")[0];
  for (const auto& [ranks, stages] : {std::pair(1, 1), {2, 1}, {2, 2}, {3, 3}, {4, 2}}) {
    const Outcome outcome =
        tessera(fmt::format("logits --model {} --ids {} --out {} --pipeline {}", tiny.folder(),
                            folder / "ids.json", folder / "out.safetensors", stages),
                ranks);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.error;
    const checkpoint::SafetensorsFile file(folder / "out.safetensors");
    std::vector<double> found(expected.size());
    file.read("logits", DType::fp64, found.data());
    for (std::size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], expected[i], allowed) << i;
  }
}

TEST_F(ProgramTest, GenerationAndEvaluationAreTheSameOnAnyRankCount) {
  ASSERT_EQ(tessera("train " + run_file("a")).exit_code, 0);
  spit(folder / "small.txt",
       std::string("First Citizen: before we proceed any further, hear me speak."));
  const std::string model = "--model " + (folder / "a") + " ";
  const std::string generate = "generate " + model + "--prompt 'The ' --max-tokens 50 ";
  const std::string eval = "eval " + model + "--json --data " + (folder / "small.txt");
  const Outcome greedy = tessera(generate + "--temperature 0");
  ASSERT_EQ(greedy.exit_code, 0) << greedy.error;
  EXPECT_TRUE(greedy.out.starts_with("The "));
  EXPECT_EQ(tessera(generate + "--temperature 0", 3).out, greedy.out);
  EXPECT_EQ(tessera(generate + "--temperature 0 --pipeline 2", 2).out, greedy.out);
  EXPECT_EQ(tessera(generate + "--seed 5", 2).out, tessera(generate + "--seed 5").out);
  EXPECT_NE(tessera(generate + "--seed 6").out, tessera(generate + "--seed 5").out);
  const auto one = nlohmann::json::parse(tessera(eval).out);
  EXPECT_EQ(one["tokens"], 59);  // every byte but the first
  const std::string of_run = "eval " + (folder / "a.yaml") + " --set mesh.pipeline=2 --json " +
                             "--data " + (folder / "small.txt");
  for (const auto& [command, ranks] : {std::pair(eval, 3),
                                       {eval + " --pipeline 2", 2},
                                       {eval + " --pipeline 2 --rows 1", 4},
                                       {eval + " --pipeline 3", 3},
                                       {of_run, 2}}) {
    SCOPED_TRACE(command);
    const Outcome outcome = tessera(command, ranks);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.error;
    const auto found = nlohmann::json::parse(outcome.out);
    EXPECT_EQ(found["tokens"], one["tokens"]);
    EXPECT_NEAR(found["loss"].get<double>(), one["loss"].get<double>(), 1e-6);
  }
}

TEST_F(ProgramTest, ToolsThatNeedNoTraining) {
  const std::string file = run_file("a");
  const auto config = nlohmann::json::parse(tessera("config --json " + file).out);
  EXPECT_EQ(config["engine.zero_optimization.stage"]["value"], 3);
  const Outcome schedule = tessera("schedule " + file);
  EXPECT_TRUE(schedule.out.starts_with("step,lr,momentum\n0,")) << schedule.out << schedule.error;
  EXPECT_EQ(std::count(schedule.out.begin(), schedule.out.end(), '\n'), 7);
  const auto env = nlohmann::json::parse(tessera("env --json").out);
  EXPECT_GE(env["threads_per_rank"], 1);
  EXPECT_NE(tessera("estimate " + file + " --ranks 4").out.find("optimizer"), std::string::npos);
  EXPECT_EQ(tessera("--help").exit_code, 0);
  EXPECT_EQ(tessera("train").exit_code, 2);
  EXPECT_EQ(tessera("trian").exit_code, 2);
}

TEST_F(ProgramTest, OutputThatIsNotWrittenIsAnError) {
  for (const char* command : {"env", "schedule --help"}) {
    const Outcome outcome = run_shell(fmt::format("'{}' {} > /dev/full", TESSERA_PROGRAM, command));
    EXPECT_EQ(outcome.exit_code, 1) << command;
    EXPECT_EQ(outcome.error, "error: standard output was not written: No space left on device\n");
  }
}

TEST_F(ProgramTest, BadInputIsNamed) {
  expect_bad_input("train " + run_file("a", "  zero_optimisation: {stage: 1}\n"),
                   {"zero_optimisation", "zero_optimization", "a.yaml:"});
  expect_bad_input("train " + run_file("b") +
                       " --set engine.train_batch_size=7 --set "
                       "engine.train_micro_batch_size_per_gpu=2",
                   {"7", "2"});
  expect_bad_input("train " + run_file("c") + " --set 'data.train=[/nonexistent/*.txt]'",
                   {"/nonexistent/*.txt"});
  expect_bad_input("train " + run_file("d") + " --set data.sequence_length=64", {"64", "32"});
  expect_bad_input("train " + run_file("e") + " --set model.n_head=3", {"n_head", "3"});
  expect_bad_input(
      "train " + run_file("f") + " --set engine.zero_optimization.offload_optimizer.device=cpu",
      {"offload_optimizer"});
  expect_bad_input("train /nonexistent.yaml", {"/nonexistent.yaml"});
  spit(folder / "empty.txt", "");
  expect_bad_input(
      "train " + run_file("g") + " --set 'data.train=[" + (folder / "empty.txt") + "]'",
      {"data.train"});
  expect_bad_input("generate --model /nonexistent --prompt a", {"/nonexistent"});
}

TEST_F(ProgramTest, ARunFolderOfAnotherConfigurationIsRefused) {
  const std::string file = run_file("a");
  ASSERT_EQ(tessera("train " + file).exit_code, 0);
  expect_bad_input("train " + file + " --set model.n_embd=16", {"n_embd", "32", "16"});
  expect_bad_input("train " + file + " --set engine.train_batch_size=4",
                   {"train_batch_size", "8", "4"});
  // The stage may change.
  EXPECT_EQ(tessera("train " + file + " --set engine.zero_optimization.stage=1", 2).exit_code, 0);
}

TEST_F(ProgramTest, TrainingThatDivergesStopsWithAnExplanation) {
  const Outcome outcome = tessera(
      "train " + run_file("nan") +
      " --set engine.optimizer.params.lr=1e30 --set engine.scheduler=null --set run.steps=60");
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_NE(outcome.error.find("diverged"), std::string::npos) << outcome.error;
  EXPECT_NE(outcome.error.find("transformer."), std::string::npos) << outcome.error;
}

// A scale that is far too large is searched down, also across a stop in the middle of the search.
TEST_F(ProgramTest, Fp16FindsItsLossScaleAndContinues) {
  const std::string fp16 =
      "--set run.steps=24 --set engine.scheduler=null --set engine.fp16='{enabled: true, "
      "initial_scale_power: 30, loss_scale_window: 4}' ";
  const Outcome outcome = tessera("train " + fp16 + run_file("whole"), 2);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.error;
  EXPECT_NE(outcome.error.find("the loss scale falls from"), std::string::npos) << outcome.error;
  const auto expected = without_times(read_json_lines(folder / "whole/metrics.jsonl"));
  EXPECT_EQ(expected[0]["loss_scale"], 0x1p30);
  EXPECT_EQ(expected[0]["skipped"], true);
  int skipped = 0;
  for (const auto& line : expected) skipped += line.value("skipped", false) ? 1 : 0;
  EXPECT_GT(skipped, 5);
  EXPECT_LT(skipped, 20);
  const auto summary = read_json(folder / "whole/summary.json");
  EXPECT_EQ(summary["skipped_steps"], skipped);
  EXPECT_EQ(summary["steps"], 24);
  EXPECT_LT(summary["final_loss"], expected[0]["loss"]);

  for (const int stop : {4, 17}) {
    const std::string name = fmt::format("stopped{}", stop);
    const std::string file = run_file(name);
    ASSERT_EQ(tessera(fmt::format("train {} {} --steps {}", fp16, file, stop), 2).exit_code, 0);
    ASSERT_EQ(tessera("train " + fp16 + file, 2).exit_code, 0);
    EXPECT_EQ(without_times(read_json_lines(folder / (name + "/metrics.jsonl"))), expected) << stop;
    EXPECT_EQ(read_json(folder / (name + "/summary.json"))["weights_checksum"],
              summary["weights_checksum"]);
  }

  const std::string generate = "generate --prompt 'The ' --max-tokens 20 --temperature 0 --model ";
  const Outcome text = tessera(generate + (folder / "whole") + " --dtype fp16");
  ASSERT_EQ(text.exit_code, 0) << text.error;
  EXPECT_EQ(text.out, tessera(generate + (folder / "whole") + " --dtype fp16", 3).out);
}

TEST_F(ProgramTest, AFixedLossScaleThatIsTooLargeIsNamed) {
  const Outcome outcome = tessera("train " + run_file("fixed") +
                                  " --set engine.fp16='{enabled: true, loss_scale: 1e12}'");
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_NE(outcome.error.find("lower engine.fp16.loss_scale"), std::string::npos) << outcome.error;
}

TEST_F(ProgramTest, StartedAloneInsideALauncherExplainsItself) {
  const Outcome outcome = run_shell(fmt::format("OMPI_COMM_WORLD_SIZE=4 PMIX_RANK= '{}' train {}",
                                                TESSERA_PROGRAM, run_file("a")));
  EXPECT_EQ(outcome.exit_code, 2) << outcome.out << outcome.error;
  EXPECT_NE(outcome.error.find("4"), std::string::npos);
}

TEST_F(ProgramTest, StartedBySrunWithoutPmiExplainsItself) {
  const Outcome outcome = run_shell(fmt::format(
      "SLURM_PROCID=0 SLURM_STEP_NUM_TASKS=4 '{}' train {}", TESSERA_PROGRAM, run_file("a")));
  EXPECT_EQ(outcome.exit_code, 2) << outcome.out << outcome.error;
  EXPECT_NE(outcome.error.find("srun started 4 tasks without PMI"), std::string::npos);
  EXPECT_NE(outcome.error.find("alone in MPI_COMM_WORLD"), std::string::npos) << outcome.error;
}

TEST_F(ProgramTest, RanksWithDifferentRunFilesAreTold) {
  const std::string first = run_file("a"), second = run_file("b");
  const Outcome outcome =
      run_shell(fmt::format("'{}' -n 1 '{}' train {} : -n 1 '{}' train {}", TESSERA_MPIRUN,
                            TESSERA_PROGRAM, first, TESSERA_PROGRAM, second));
  EXPECT_EQ(outcome.exit_code, 2) << outcome.error;
  EXPECT_NE(outcome.error.find("run.folder"), std::string::npos) << outcome.error;
}

TEST_F(ProgramTest, TooLittleMemoryIsToldBeforeAllocating) {
  const Outcome outcome =
      tessera("train " + run_file("big") +
              " --set model.n_embd=32768 --set model.n_layer=40 --set model.n_head=32");
  EXPECT_NE(outcome.exit_code, 0);
  EXPECT_NE(outcome.error.find("stage"), std::string::npos) << outcome.error;
  EXPECT_NE(outcome.error.find("GiB"), std::string::npos) << outcome.error;
}

}  // namespace
}  // namespace tessera::test
