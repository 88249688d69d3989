// SPDX-License-Identifier: Apache-2.0
// Saving and loading through the engine: options, client state, tags, and saves in the background.
#include "tessera/engine/checkpointing.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <optional>
#include <sstream>

#include <gtest/gtest.h>

#include "tessera/base/cpu_features.hpp"
#include "tessera/comm/runtime.hpp"
#include "tessera/engine/engine.hpp"
#include "tessera/parallel/model_state.hpp"

#include "checkpoint/fault_point.hpp"
#include "support/expect_error.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_model.hpp"

namespace tessera::engine {
namespace {

using test::expect_error;
using test::TinyModel;

EngineOptions options_of(int stage) {
  EngineOptions options;
  options.zero.stage = stage;
  options.zero.rule.lr = 0.002;
  options.groups.weight_decay = 0.1;
  options.schedule.type = "WarmupLR";
  options.schedule.parameters["warmup_num_steps"] = 10.0;
  return options;
}

// An engine with a model whose configuration may differ from the tiny one's.
struct Trial {
  Trial(Communicator& group, int stage, const std::function<void(std::string&)>& change = {})
      : Trial(group, options_of(stage), change) {}
  Trial(Communicator& group, const EngineOptions& options,
        const std::function<void(std::string&)>& change = {}) {
    std::string json = read_text(tiny.folder() + "/config.json");
    if (change) change(json);
    model = nn::make_model(json, {});
    engine = std::make_unique<Engine>(group, *model, options);
    parallel::initialize(*model, engine->optimizer(), 99);
  }

  std::vector<double> train(int steps) {
    std::vector<double> losses;
    for (int i = 0; i < steps; ++i) {
      Communicator& group = engine->group();
      std::vector<nn::Batch> batches;
      batches.push_back(tiny.batch(engine->step() % TinyModel::kSteps, group.rank(), 1));
      outcomes.push_back(engine->train_step(batches));
      losses.push_back(outcomes.back().loss);
    }
    return losses;
  }
  std::uint64_t checksum() { return parallel::weights_checksum(*model, engine->optimizer()); }

  TinyModel tiny;
  std::unique_ptr<nn::Model> model;
  std::unique_ptr<Engine> engine;
  std::vector<StepOutcome> outcomes;
};

// Sets the number of a key in a config.json.
std::function<void(std::string&)> with(const std::string& key, const std::string& value) {
  return [=](std::string& json) {
    const std::size_t at = json.find('"' + key + '"');
    ASSERT_NE(at, std::string::npos) << key;
    const std::size_t begin = json.find(':', at) + 1;
    json.replace(begin, json.find_first_of(",}\n", begin) - begin, value);
  };
}

std::string content(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

class CheckpointingTest : public ::testing::Test {
 protected:
  void SetUp() override {
    set_threads(1);
    if (runtime_.rank() == 0) mine_ = std::make_unique<test::TemporaryFolder>();
    folder_ = world().broadcast_text(mine_ ? mine_->path() : "", 0);
  }
  void TearDown() override {
    checkpoint::fault_hook() = nullptr;
    world().barrier();
  }
  Communicator& world() { return runtime_.world(); }
  std::size_t files() {
    world().barrier();
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder_),
                                                  std::filesystem::directory_iterator()));
  }

  Runtime runtime_;
  std::unique_ptr<test::TemporaryFolder> mine_;
  std::string folder_;
};

TEST_F(CheckpointingTest, TagsAndClientStateComeBack) {
  Trial first(world(), 2);
  first.train(2);
  const SaveOutcome best = first.engine->save_checkpoint(folder_, {"best", R"({"epoch": 3})"});
  EXPECT_EQ(best.path, folder_ + "/best.h5");
  EXPECT_EQ(best.step, 2);
  const std::uint64_t checksum = first.checksum();
  first.train(1);
  first.engine->save_checkpoint(folder_);

  Trial second(world(), 3);
  const LoadOutcome loaded = second.engine->load_checkpoint(folder_, {.tag = "best"});
  EXPECT_EQ(loaded.client_state, R"({"epoch": 3})");
  EXPECT_EQ(loaded.step, 2);
  EXPECT_TRUE(loaded.missing.empty() && loaded.unexpected.empty());
  EXPECT_EQ(second.checksum(), checksum);
  const LoadOutcome newest = second.engine->load_checkpoint(folder_);
  EXPECT_EQ(newest.path, folder_ + "/step-00000003.h5");
  EXPECT_EQ(newest.client_state, "");
  EXPECT_EQ(second.checksum(), first.checksum());
  EXPECT_EQ(second.engine->load_checkpoint(folder_ + "/best.h5").step, 2);

  expect_error(Code::invalid_argument, {"a/b"},
               [&] { first.engine->save_checkpoint(folder_, {"a/b"}); });
  expect_error(Code::invalid_argument, {"not JSON"}, [&] {
    first.engine->save_checkpoint(folder_, {"x", "{"});
  });
  expect_error(Code::io, {"worst.h5"},
               [&] { first.engine->load_checkpoint(folder_, {.tag = "worst"}); });
  EXPECT_EQ(files(), 2u);
}

TEST_F(CheckpointingTest, PartsCanBeLeftOut) {
  Trial first(world(), 1);
  first.train(3);
  first.engine->save_checkpoint(folder_);
  const std::uint64_t weights = first.checksum();
  const std::vector<double> exact = first.train(3);
  const double next_rate = first.outcomes[3].learning_rate;

  Trial all(world(), 1);
  all.engine->load_checkpoint(folder_);
  EXPECT_EQ(all.train(3), exact);

  Trial module(world(), 1);
  module.engine->load_checkpoint(folder_, {.load_module_only = true});
  EXPECT_EQ(module.checksum(), weights);
  EXPECT_EQ(module.engine->step(), 0);
  EXPECT_EQ(module.engine->optimizer().steps(), 0);

  Trial no_states(world(), 1);
  no_states.engine->load_checkpoint(folder_, {.load_optimizer_states = false});
  EXPECT_EQ(no_states.engine->step(), 3);
  EXPECT_EQ(no_states.engine->optimizer().steps(), 0);
  const std::vector<double> fresh = no_states.train(2);
  EXPECT_EQ(fresh[0], exact[0]);  // the same weights
  EXPECT_NE(fresh[1], exact[1]);  // another update
  EXPECT_EQ(no_states.outcomes[0].learning_rate, next_rate);

  Trial no_schedule(world(), 1);
  no_schedule.engine->load_checkpoint(folder_, {.load_lr_scheduler_states = false});
  EXPECT_EQ(no_schedule.engine->optimizer().steps(), 3);
  no_schedule.train(1);
  EXPECT_EQ(no_schedule.outcomes[0].learning_rate, first.outcomes[0].learning_rate);
}

// A skipped update moves neither the schedule nor the bias correction, and stays skipped.
TEST_F(CheckpointingTest, SkippedUpdatesAreRemembered) {
  Trial first(world(), 0);
  first.train(2);
  {
    std::vector<nn::Batch> batches;
    batches.push_back(first.tiny.batch(2, world().rank(), 1));
    const zero::Range owned = first.engine->optimizer().held(0);
    std::vector<float> values(static_cast<std::size_t>(owned.count));
    first.engine->optimizer().master(0, owned.begin, owned.count, values.data());
    const std::vector<float> infinite(values.size(), std::numeric_limits<float>::infinity());
    first.engine->optimizer().load(0, owned.begin, owned.count, infinite.data());
    first.engine->optimizer().finish_load();
    EXPECT_TRUE(first.engine->train_step(batches).skipped);
    first.engine->optimizer().load(0, owned.begin, owned.count, values.data());
    first.engine->optimizer().finish_load();
  }
  first.engine->save_checkpoint(folder_);
  const std::vector<double> exact = first.train(2);
  Trial second(world(), 3);
  second.engine->load_checkpoint(folder_);
  EXPECT_EQ(second.engine->step(), 3);
  EXPECT_EQ(second.engine->optimizer().steps(), 2);
  EXPECT_EQ(second.train(2), exact);
  EXPECT_EQ(second.checksum(), first.checksum());
  EXPECT_EQ(second.outcomes[0].learning_rate, first.outcomes[2].learning_rate);
}

std::vector<std::string> sorted(std::vector<std::string> names) {
  std::ranges::sort(names);
  return names;
}

TEST_F(CheckpointingTest, NamesThatDoNotFitAreAllListed) {
  Trial small(world(), 2, with("n_layer", "1"));
  small.train(1);
  small.engine->save_checkpoint(folder_);
  Trial large(world(), 2);
  const std::uint64_t before = large.checksum();
  expect_error(Code::io, {"missing: transformer.h.1.", "and ", " more"},
               [&] { large.engine->load_checkpoint(folder_); });
  EXPECT_EQ(large.checksum(), before);
  EXPECT_EQ(large.engine->step(), 0);
  const LoadOutcome loaded = large.engine->load_checkpoint(folder_, {.load_module_strict = false});
  EXPECT_EQ(loaded.missing.size() % 3, 0u);
  EXPECT_EQ(std::ranges::count_if(loaded.missing,
                                  [](const auto& name) {
                                    return name.starts_with("optimizer/exp_avg/transformer.h.");
                                  }),
            static_cast<std::ptrdiff_t>(loaded.missing.size() / 3));
  EXPECT_TRUE(loaded.unexpected.empty());
  EXPECT_NE(large.checksum(), before);
  large.engine->save_checkpoint(folder_, {"large"});
  const LoadOutcome back =
      small.engine->load_checkpoint(folder_, {.tag = "large", .load_module_strict = false});
  EXPECT_EQ(sorted(back.unexpected), sorted(loaded.missing));
  EXPECT_TRUE(back.missing.empty());
  expect_error(Code::io, {"unexpected: transformer.h.1."},
               [&] { small.engine->load_checkpoint(folder_, {.tag = "large"}); });
}

std::vector<float> owned_values(Trial& trial, int index) {
  const zero::Range owned = trial.engine->optimizer().owned(index);
  std::vector<float> values(static_cast<std::size_t>(owned.count));
  trial.engine->optimizer().master(index, owned.begin, owned.count, values.data());
  return values;
}

TEST_F(CheckpointingTest, AnotherVocabularyIsLoadedWhenToldTo) {
  Trial plain(world(), 2);
  plain.train(2);
  plain.engine->save_checkpoint(folder_);
  const std::int64_t rows = plain.model->vocabulary();
  const std::int64_t width = plain.model->parameters()[0].parameter->shape()[1];
  for (const int stage : {0, 3})
    for (const std::int64_t change : {-5, 7}) {
      const auto other = with("vocab_size", std::to_string(rows + change));
      Trial trial(world(), stage, other), fresh(world(), stage, other);
      expect_error(Code::io, {"wte", "shape"}, [&] { trial.engine->load_checkpoint(folder_); });
      trial.engine->load_checkpoint(folder_, {.allow_vocabulary_change = true});
      // Against the file: rows that both have are its, others are the fresh ones.
      const checkpoint::Reader reader(folder_ + "/step-00000002.h5");
      const zero::Range owned = trial.engine->optimizer().owned(0);
      const auto found = owned_values(trial, 0), untouched = owned_values(fresh, 0);
      std::vector<float> saved(static_cast<std::size_t>(rows * width));
      reader.read("parameters/transformer.wte.weight", 0, rows * width, DType::fp32, saved.data());
      for (std::int64_t j = 0; j < owned.count; ++j) {
        const std::int64_t element = owned.begin + j;
        const float expected = element < rows * width ? saved[static_cast<std::size_t>(element)]
                                                      : untouched[static_cast<std::size_t>(j)];
        ASSERT_EQ(found[static_cast<std::size_t>(j)], expected) << element;
      }
      EXPECT_EQ(trial.engine->step(), 2);
      if (change > 0) trial.train(1);  // smaller ones may lack the tokens of the text
    }
  // Another number of positions is another model.
  Trial longer(world(), 0, with("n_positions", "100"));
  expect_error(Code::io, {"wpe", "shape"},
               [&] { longer.engine->load_checkpoint(folder_, {.allow_vocabulary_change = true}); });
}

TEST_F(CheckpointingTest, InTheBackgroundNothingChangesABit) {
  for (const int stage : {0, 3}) {
    Trial plain(world(), stage), background(world(), stage);
    plain.train(2);
    background.train(2);
    plain.engine->save_checkpoint(folder_, {"plain"});
    const SaveOutcome begun =
        background.engine->save_checkpoint(folder_, {.tag = "background", .asynchronous = true});
    EXPECT_TRUE(begun.asynchronous);
    EXPECT_TRUE(background.engine->saving());
    EXPECT_EQ(background.train(4), plain.train(4));
    EXPECT_EQ(background.checksum(), plain.checksum());
    std::optional<SaveOutcome> ended = background.engine->finish_save();
    for (const StepOutcome& outcome : background.outcomes)
      if (outcome.saved) ended = outcome.saved;
    ASSERT_TRUE(ended.has_value());
    EXPECT_EQ(ended->error, "");
    EXPECT_EQ(ended->step, 2);
    EXPECT_GT(ended->report.file_bytes, 0);
    EXPECT_LE(ended->seconds_blocked, ended->report.seconds + 0.5);
    EXPECT_EQ(content(folder_ + "/background.h5"), content(folder_ + "/plain.h5"));
    EXPECT_FALSE(background.engine->saving());
    EXPECT_FALSE(background.engine->finish_save().has_value());
    world().barrier();
  }
}

TEST_F(CheckpointingTest, TheSaveEndsInAStepByItself) {
  Trial trial(world(), 2);
  trial.train(1);
  trial.engine->save_checkpoint(folder_, {.asynchronous = true});
  for (int i = 0; i < 2000 && trial.engine->saving(); ++i) trial.train(1);
  ASSERT_TRUE(trial.outcomes.back().saved.has_value());
  EXPECT_EQ(trial.outcomes.back().saved->path, folder_ + "/step-00000001.h5");
  EXPECT_TRUE(std::filesystem::exists(folder_ + "/step-00000001.h5"));
}

TEST_F(CheckpointingTest, ErrorsInTheBackgroundSurfaceInAStepOfAllRanks) {
  Trial plain(world(), 2), trial(world(), 2);
  plain.train(4);
  trial.train(1);
  checkpoint::fault_hook() = [&](const char* point) {
    if (runtime_.rank() == runtime_.size() - 1 && std::string(point) == "write")
      throw Error(Code::io, "no space left");
  };
  trial.engine->save_checkpoint(folder_, {.asynchronous = true});
  trial.train(3);
  std::optional<SaveOutcome> ended = trial.engine->finish_save();
  for (const StepOutcome& outcome : trial.outcomes)
    if (outcome.saved) ended = outcome.saved;
  ASSERT_TRUE(ended.has_value());
  EXPECT_NE(ended->error.find("no space left"), std::string::npos) << ended->error;
  EXPECT_EQ(files(), 0u);
  EXPECT_EQ(trial.checksum(), plain.checksum());

  // The next save says so, and the one after that works.
  trial.engine->save_checkpoint(folder_, {.asynchronous = true});
  expect_error(Code::io, {"before this one", "no space left"},
               [&] { trial.engine->save_checkpoint(folder_); });
  checkpoint::fault_hook() = nullptr;
  trial.engine->save_checkpoint(folder_);
  EXPECT_EQ(files(), 1u);
  Trial again(world(), 0);
  again.engine->load_checkpoint(folder_);
  EXPECT_EQ(again.checksum(), plain.checksum());
}

TEST_F(CheckpointingTest, TheCopyIsCounted) {
  for (const int stage : {0, 2}) {
    Trial trial(world(), stage);
    const MemoryLedger& ledger = memory_ledger(Device{});
    EXPECT_EQ(ledger.current(Purpose::snapshot), 0);
    trial.engine->save_checkpoint(folder_, {.asynchronous = true});
    std::int64_t bytes = 0;
    const auto parameters = static_cast<int>(trial.model->parameters().size());
    for (int i = 0; i < parameters; ++i)
      bytes += 3 * round_up(4 * trial.engine->optimizer().owned(i).count, 64);
    EXPECT_EQ(ledger.current(Purpose::snapshot), bytes);
    trial.engine->finish_save();
    trial.engine->save_checkpoint(folder_, {.asynchronous = true});
    EXPECT_EQ(ledger.peak(Purpose::snapshot), ledger.current(Purpose::snapshot));
    trial.engine->finish_save();
  }
}

}  // namespace
}  // namespace tessera::engine
