// SPDX-License-Identifier: Apache-2.0
// What a run keeps, continues from, and says when a save fails.
#include "engine/checkpoint_keeper.hpp"

#include <filesystem>
#include <memory>
#include <optional>
#include <sstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tessera/base/cpu_features.hpp"
#include "tessera/base/file.hpp"
#include "tessera/parallel/model_state.hpp"

#include "checkpoint/fault_point.hpp"
#include "support/expect_error.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_model.hpp"

namespace tessera::engine {
namespace {

using test::expect_error;
using test::TinyModel;

class CheckpointKeeperTest : public ::testing::Test {
 protected:
  void SetUp() override {
    set_threads(1);
    if (runtime_.rank() == 0) mine_ = std::make_unique<test::TemporaryFolder>();
    place_ = world().broadcast_text(mine_ ? mine_->path() : "", 0);
    if (runtime_.rank() == 0) folder().create();
    world().barrier();
    EngineOptions options;
    options.zero.stage = 2;
    engine_ = std::make_unique<Engine>(world(), *model_, options);
    parallel::initialize(*model_, engine_->optimizer(), 1);
  }
  void TearDown() override {
    checkpoint::fault_hook() = nullptr;
    world().barrier();
  }

  Communicator& world() { return runtime_.world(); }
  RunFolder folder() const { return RunFolder(place_ + "/run"); }
  std::string path_of(std::int64_t step) const {
    return checkpoint::Folder(folder().checkpoints().string()).name_of(step);
  }
  std::unique_ptr<CheckpointKeeper> keeper(const config::CheckpointConfig& config = {}) {
    return std::make_unique<CheckpointKeeper>(runtime_, folder().checkpoints().string(), config,
                                              EventLog(folder(), runtime_.rank() == 0));
  }
  std::optional<SaveOutcome> step() {
    std::vector<nn::Batch> batches;
    batches.push_back(tiny_.batch(0, runtime_.rank(), 1));
    return engine_->train_step(batches).saved;
  }
  void step_and_save(CheckpointKeeper& keeper, bool last = false) {
    step();
    keeper.save(*engine_, "", last);
  }
  std::vector<std::int64_t> steps() {
    world().barrier();
    std::vector<std::int64_t> found;
    for (const auto& entry : checkpoint::Folder(folder().checkpoints().string()).entries())
      found.push_back(entry.step);
    world().barrier();
    return found;
  }
  std::vector<std::string> events() {
    world().barrier();
    std::vector<std::string> names;
    std::istringstream lines(read_text(folder().events()));
    for (std::string line; std::getline(lines, line);)
      names.push_back(nlohmann::json::parse(line)["event"]);
    return names;
  }
  void damage(std::int64_t step) {
    world().barrier();
    if (runtime_.rank() == 0) std::filesystem::resize_file(path_of(step), 100);
    world().barrier();
  }
  // All saves fail on the last rank while it is set.
  void fail_saves(bool fail) {
    checkpoint::fault_hook() = nullptr;
    if (fail)
      checkpoint::fault_hook() = [this](const char* point) {
        if (runtime_.rank() == runtime_.size() - 1 && std::string(point) == "write")
          throw Error(Code::io, "no space left");
      };
  }
  using Steps = std::vector<std::int64_t>;

  Runtime runtime_;
  TinyModel tiny_;
  std::unique_ptr<nn::Model> model_ = tiny_.model();
  std::unique_ptr<test::TemporaryFolder> mine_;
  std::string place_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(CheckpointKeeperTest, AStepIsSavedOnce) {
  const auto run = keeper();
  EXPECT_FALSE(run->find("auto").has_value());
  step_and_save(*run);
  run->save(*engine_, "", true);
  EXPECT_EQ(events(), std::vector<std::string>{"save"});
  EXPECT_FALSE(run->find("never").has_value());
  const auto again = keeper();
  const auto found = again->find("auto");
  ASSERT_TRUE(found.has_value());
  again->begin(*engine_, found, "auto");
  again->save(*engine_, "", true);
  EXPECT_EQ(events(), std::vector<std::string>{"save"});
}

TEST_F(CheckpointKeeperTest, TheOneContinuedFromStaysUntilTheNextIsWhole) {
  config::CheckpointConfig one;
  one.keep = 1;
  for (int i = 0; i < 2; ++i) step_and_save(*keeper());
  damage(2);
  const auto run = keeper(one);
  const auto found = run->find("auto");
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->path(), path_of(1));
  engine_->load(*found);
  run->begin(*engine_, found, "auto");
  EXPECT_EQ(events().back(), "damaged");

  step();
  fail_saves(true);
  run->save(*engine_, "", false);  // step 2 again
  EXPECT_EQ(steps(), (Steps{1, 2}));
  EXPECT_EQ(events().back(), "save_failed");
  fail_saves(false);
  run->save(*engine_, "", false);
  EXPECT_EQ(steps(), (Steps{2}));
  EXPECT_TRUE(checkpoint::Reader(path_of(2)).verify().empty());
}

TEST_F(CheckpointKeeperTest, InTheBackgroundAFailureIsToldAtTheNextSaveAtTheLatest) {
  config::CheckpointConfig background;
  background.asynchronous = true;
  const auto run = keeper(background);
  fail_saves(true);
  step_and_save(*run);
  run->save(*engine_, "", false);  // waits, warns, and tries the same step again
  const auto ended = engine_->finish_save();
  ASSERT_TRUE(ended.has_value());
  run->note_saved(*ended);
  EXPECT_EQ(events(), (std::vector<std::string>{"save_failed", "save_failed"}));
  fail_saves(false);
  run->save(*engine_, "", true);
  EXPECT_EQ(events(), (std::vector<std::string>{"save_failed", "save_failed", "save"}));
  EXPECT_EQ(steps(), (Steps{1}));
}

TEST_F(CheckpointKeeperTest, TheLastSaveAndStopAreErrors) {
  fail_saves(true);
  expect_error(Code::not_saved, {"last checkpoint", "step 1", "no space left"},
               [&] { step_and_save(*keeper(), true); });
  config::CheckpointConfig strict;
  strict.on_error = config::OnSaveError::stop;
  expect_error(Code::not_saved, {"run.checkpoint.on_error", "no space left"},
               [&] { step_and_save(*keeper(strict)); });
  EXPECT_EQ(steps(), Steps{});
}

TEST_F(CheckpointKeeperTest, OnlyDamagedOnesAreAnError) {
  step_and_save(*keeper());
  damage(1);
  for (const std::string& resume : {std::string("auto"), path_of(1)})
    expect_error(Code::io, {"step-00000001.h5"}, [&] { keeper()->find(resume); });
}

}  // namespace
}  // namespace tessera::engine
