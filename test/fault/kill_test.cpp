// SPDX-License-Identifier: Apache-2.0
// Trains with frequent saves on three ranks, kills a rank with SIGKILL again and again, at random
// moments and inside every phase of a save, and starts again: the result must be that of a run that
// nobody interrupted, bit for bit.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "tessera/base/atomic_file.hpp"
#include "tessera/base/error.hpp"
#include "tessera/base/random.hpp"
#include "tessera/checkpoint/checksum.hpp"
#include "tessera/checkpoint/folder.hpp"
#include "tessera/checkpoint/reader.hpp"

#include "fault/job.hpp"
#include "support/program.hpp"

namespace tessera::test {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr int kRanks = 3;
constexpr int kKeep = 2;
constexpr int kPauseMilliseconds = 400;

struct Options {
  int kills = 12;
  std::uint64_t seed = 1;
  double seconds = 100;
  int steps = 600;
  bool asynchronous = false;
  std::string program = TESSERA_PROGRAM;
};

void require(bool condition, const std::string& what) {
  if (!condition) throw std::runtime_error(what);
}

/// What a run ends with, times aside.
struct Result {
  std::vector<nlohmann::json> metrics;
  std::string weights;
};

struct Tally {
  int runs = 0;
  int finished = 0;
  int kills = 0;
  std::map<std::string, int> by_phase;
  std::int64_t steps_lost = 0;
  std::int64_t most_lost = 0;
  int temporaries = 0;
  int launchers_ended = 0;
};

class KillTest {
 public:
  explicit KillTest(const Options& options) : options_(options), random_(options.seed, 0) {}
  void run();

 private:
  double uniform() { return random_.uniform(next_++); }
  int pick(int bound) { return static_cast<int>(uniform() * static_cast<float>(bound)); }

  std::string write_run_file(const std::string& name);
  JobRequest request(const std::string& name);
  Result result_of(const std::string& name) const;
  void run_reference();
  void run_one_sequence(const std::string& name);
  bool run_until_killed(const std::string& name, const std::string& phase);
  void wait_for_the_moment(Job& job, const std::string& phase);
  void inspect(const std::string& name, const std::string& phase);
  void expect_reference(const std::string& name);
  bool enough() const;
  void report() const;

  Options options_;
  RandomStream random_;
  std::uint64_t next_ = 0;
  TemporaryFolder folder_;
  Clock::time_point begin_ = Clock::now();
  double reference_seconds_ = 0;
  Result reference_;
  Tally tally_;
};

std::string KillTest::write_run_file(const std::string& name) {
  const std::string path = folder_ / (name + ".yaml");
  spit(
      path,
      fmt::format(
          R"(model: {{model_type: gpt2, n_layer: 2, n_embd: 16, n_head: 2, n_positions: 16, vocab_size: auto, resid_pdrop: 0.1, embd_pdrop: 0.1, attn_pdrop: 0.1}}
data: {{train: ["{}"], validation: 0.05, tokenizer: bytes, sequence_length: 16}}
run: {{folder: "{}", steps: {}, seed: 7, checkpoint: {{every: 5, keep: {}}}, validate: {{every: 50, batches: 1}}}}
engine:
  train_batch_size: 6
  optimizer: {{type: AdamW, params: {{lr: 1e-3}}}}
  scheduler: {{type: WarmupDecayLR, params: {{warmup_num_steps: 20, total_num_steps: {}}}}}
)",
          TESSERA_TEST_DATA "/text/tinyshakespeare.txt", folder_ / name, options_.steps, kKeep,
          options_.steps));
  return path;
}

/// A start of the run, in any stage: all give the same bits.
JobRequest KillTest::request(const std::string& name) {
  JobRequest request;
  request.arguments = {TESSERA_MPIRUN,
                       "-n",
                       std::to_string(kRanks),
                       options_.program,
                       "train",
                       write_run_file(name),
                       "--set",
                       fmt::format("engine.zero_optimization.stage={}", pick(4))};
  if (options_.asynchronous) {
    request.arguments.emplace_back("--set");
    request.arguments.emplace_back("run.checkpoint.asynchronous=true");
  }
  request.environment = {{"OMP_NUM_THREADS", "1"}, {"TESSERA_CACHE", folder_ / "cache"}};
  request.output = folder_ / (name + ".out");
  return request;
}

Result KillTest::result_of(const std::string& name) const {
  Result result;
  for (nlohmann::json line : read_json_lines(folder_ / (name + "/metrics.jsonl"))) {
    for (const char* key : {"seconds", "tokens_per_second"}) line.erase(key);
    result.metrics.push_back(std::move(line));
  }
  const checkpoint::Folder checkpoints(folder_ / (name + "/checkpoints"));
  const checkpoint::Reader last(checkpoints.name_of(options_.steps));
  result.weights = checkpoint::format_checksum(last.weights_checksum());
  require(read_json(folder_ / (name + "/summary.json"))["weights_checksum"] == result.weights,
          name + ": summary.json has other weights than the last checkpoint");
  return result;
}

void KillTest::run_reference() {
  const Clock::time_point start = Clock::now();
  Job job(request("reference"));
  const std::optional<int> code = job.wait(std::chrono::seconds(60));
  require(code == 0, "the reference run failed:\n" + slurp(folder_ / "reference.out"));
  reference_seconds_ = std::chrono::duration<double>(Clock::now() - start).count();
  reference_ = result_of("reference");
}

/// At a random moment, or `phase`: at one of the next times that a process comes by.
void KillTest::wait_for_the_moment(Job& job, const std::string& phase) {
  if (phase == "anywhere") {
    job.wait(std::chrono::milliseconds(static_cast<int>(uniform() * reference_seconds_ * 1000)));
    return;
  }
  const int times = 1 + pick(3);
  for (int i = 0; i < times; ++i)
    if (!job.wait_for_line("waits at " + phase, std::chrono::seconds(30))) return;
  job.wait(std::chrono::milliseconds(pick(kPauseMilliseconds / 2)));
}

/// False if the run ended by itself before.
bool KillTest::run_until_killed(const std::string& name, const std::string& phase) {
  JobRequest asked = request(name);
  if (phase != "anywhere")
    asked.environment["TESSERA_FAULT"] = fmt::format("{}:pause:{}", phase, kPauseMilliseconds);
  Job job(asked);
  ++tally_.runs;
  wait_for_the_moment(job, phase);
  const bool killed = job.kill_one(kRanks, [this](int bound) { return pick(bound); });
  std::optional<int> code = job.wait(std::chrono::seconds(15));
  require(job.all_gone(std::chrono::seconds(60)), name + ": ranks outlive the one that was killed");
  if (!code) {
    code = job.end_launcher();
    ++tally_.launchers_ended;
  }
  require(killed || code == 0,
          fmt::format("{} failed without a kill, code {}:\n{}", name, *code, slurp(asked.output)));
  return killed && code != 0;
}

std::int64_t last_step(const std::string& metrics) {
  std::int64_t step = 0;
  std::istringstream lines(slurp(metrics));
  for (std::string line; std::getline(lines, line);) {
    const auto entry = nlohmann::json::parse(line, nullptr, false);  // the last may be half
    if (!entry.is_discarded()) step = entry["step"];
  }
  return step;
}

/// After a kill: whole checkpoints, temporaries, nothing else.
void KillTest::inspect(const std::string& name, const std::string& phase) {
  const std::string folder = folder_ / (name + "/checkpoints");
  std::int64_t newest = 0;
  int whole = 0;
  int temporaries = 0;
  if (fs::exists(folder))
    for (const auto& entry : fs::directory_iterator(folder)) {
      const std::string path = entry.path().string();
      if (is_temporary_name(path)) {
        ++temporaries;
        continue;
      }
      const checkpoint::Reader reader(path);
      require(reader.verify().empty(), path + " is damaged");
      require(checkpoint::Folder(folder).name_of(reader.header().step) == path,
              path + " has another step");
      newest = std::max(newest, reader.header().step);
      ++whole;
    }
  require(whole <= kKeep + 1, fmt::format("{} checkpoints in {}", whole, folder));
  // Each start removes what was left before it.
  require(temporaries <= 1, fmt::format("{} temporaries in {}", temporaries, folder));
  const std::int64_t lost = last_step(folder_ / (name + "/metrics.jsonl")) - newest;
  require(lost >= 0, "a checkpoint is ahead of the metrics");
  ++tally_.kills;
  ++tally_.by_phase[phase];
  tally_.temporaries += temporaries;
  tally_.steps_lost += lost;
  tally_.most_lost = std::max(tally_.most_lost, lost);
}

void KillTest::expect_reference(const std::string& name) {
  const Result result = result_of(name);
  require(result.weights == reference_.weights,
          fmt::format("{}: weights {}, the uninterrupted run has {}", name, result.weights,
                      reference_.weights));
  require(result.metrics == reference_.metrics, name + ": metrics.jsonl differs");
  for (const auto& entry : fs::directory_iterator(folder_ / (name + "/checkpoints")))
    require(!is_temporary_name(entry.path().string()), "left over: " + entry.path().string());
  ++tally_.finished;
}

bool KillTest::enough() const {
  const double spent = std::chrono::duration<double>(Clock::now() - begin_).count();
  return tally_.kills >= options_.kills || spent > options_.seconds;
}

/// One run, from its beginning to its end, whatever happens between.
void KillTest::run_one_sequence(const std::string& name) {
  static constexpr std::array phases = {"anywhere", "create",   "anywhere", "write",    "anywhere",
                                        "flush",    "anywhere", "seal",     "anywhere", "rename"};
  while (!enough()) {
    const std::string phase = phases[static_cast<std::size_t>(tally_.kills) % phases.size()];
    if (!run_until_killed(name, phase)) break;
    inspect(name, phase);
  }
  Job job(request(name));
  ++tally_.runs;
  const std::optional<int> code = job.wait(std::chrono::seconds(60));
  require(code == 0, name + ": the last start failed:\n" + slurp(folder_ / (name + ".out")));
  expect_reference(name);
}

void KillTest::report() const {
  std::string phases;
  for (const auto& [phase, count] : tally_.by_phase) phases += fmt::format(" {} {}", phase, count);
  if (tally_.launchers_ended > 0)
    fmt::print("{} times mpirun did not notice that all ranks were gone and had to be ended\n",
               tally_.launchers_ended);
  fmt::print(
      "{} kills ({} ) in {} starts of {} runs of {} steps; {} steps trained again, at most {} at "
      "once;\n{} kills left a temporary file; all {} runs end as the uninterrupted one, weights "
      "{}\n",
      tally_.kills, phases, tally_.runs, tally_.finished, options_.steps, tally_.steps_lost,
      tally_.most_lost, tally_.temporaries, tally_.finished, reference_.weights);
}

void KillTest::run() {
  fmt::print("seed {}, {} kills or {} s\n", options_.seed, options_.kills, options_.seconds);
  run_reference();
  for (int i = 1; !enough(); ++i) run_one_sequence(fmt::format("run-{}", i));
  report();
}

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Kills ranks of a training run and expects the result of an uninterrupted one.");
  app.add_option("--kills", options.kills, "stop after so many");
  app.add_option("--seed", options.seed, "of the moments and the ranks");
  app.add_option("--seconds", options.seconds, "start no more kills after this time");
  app.add_option("--steps", options.steps, "of each run");
  app.add_flag("--asynchronous", options.asynchronous, "save in the background");
  app.add_option("--program", options.program, "another tessera than the one of this build");
  CLI11_PARSE(app, argc, argv);
  try {
    KillTest(options).run();
  } catch (const std::exception& error) {
    fmt::print(stderr, "FAILED (seed {}): {}\n", options.seed, error.what());
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace tessera::test

int main(int argc, char** argv) {
  return tessera::test::main(argc, argv);
}
