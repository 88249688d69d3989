// SPDX-License-Identifier: Apache-2.0
// The folder of checkpoints: names, the newest whole one, left-overs, old ones.
#include "tessera/checkpoint/folder.hpp"

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "tessera/base/atomic_file.hpp"
#include "tessera/checkpoint/find_whole.hpp"

#include "checkpoint/checkpoint_fixture.hpp"
#include "support/expect_error.hpp"

namespace tessera::checkpoint {
namespace {

class FolderTest : public CheckpointTest {
 protected:
  void save_step(const Folder& folder, std::int64_t step) {
    path_ = folder.name_of(step);
    save_test_file();
  }
  // Changes a bit of the first tensor with that prefix.
  static void flip_byte_of(const std::string& path, const std::string& prefix) {
    const Reader reader(path);
    for (const DatasetInfo& info : reader.datasets()) {
      if (!info.path.starts_with(prefix) || info.shape.numel() == 0) continue;
      std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
      file.seekg(info.offset);
      const auto byte = static_cast<char>(file.get() ^ 1);
      file.seekp(info.offset);
      file.put(byte);
      return;
    }
    FAIL() << "no tensor " << prefix << " in " << path;
  }
  std::vector<std::int64_t> steps(const Folder& folder) {
    std::vector<std::int64_t> steps;
    for (const FolderEntry& entry : folder.entries()) steps.push_back(entry.step);
    return steps;
  }
  using Steps = std::vector<std::int64_t>;
};

TEST_F(FolderTest, NamesSortByStep) {
  const Folder folder(folder_path_ + "/run/checkpoints");
  EXPECT_EQ(folder.name_of(100), folder.path() + "/step-00000100.h5");
  EXPECT_EQ(folder.name_of(1234567890), folder.path() + "/step-1234567890.h5");
  EXPECT_FALSE(folder.newest().has_value());
  folder.create();
  folder.create();
  EXPECT_FALSE(folder.newest().has_value());
  for (const std::int64_t step : {20, 3, 100}) save_step(folder, step);
  for (const char* name : {"/step-.h5", "/step-x1.h5", "/step-00000500.h5.old", "/other.h5"})
    folder_->file("run/checkpoints" + std::string(name), "");
  EXPECT_EQ(steps(folder), (Steps{3, 20, 100}));
  EXPECT_EQ(folder.newest()->step, 100);
}

TEST_F(FolderTest, ADamagedNewestIsPassedOver) {
  const Folder folder(folder_path_);
  save_step(folder, 1);
  save_step(folder, 2);
  std::filesystem::resize_file(folder.name_of(2), 1000);
  folder_->file("step-00000003.h5", "not HDF5");
  EXPECT_EQ(folder.newest()->step, 1);
}

TEST_F(FolderTest, LeftoversGoAndNothingElse) {
  const Folder folder(folder_path_);
  save_step(folder, 1);
  folder_->file(std::filesystem::path(temporary_name("step-00000002.h5")).string(), "half");
  folder_->file("notes.txt.tmp-1", "mine");
  EXPECT_EQ(folder.remove_leftovers(), 1);
  EXPECT_EQ(folder.remove_leftovers(), 0);
  EXPECT_EQ(files_in_folder(), 2u);
}

TEST_F(FolderTest, KeepsTheNewestAndTheProtected) {
  const Folder folder(folder_path_);
  for (const std::int64_t step : {1, 2, 3, 4, 5}) save_step(folder, step);
  folder.keep(0);
  EXPECT_EQ(steps(folder), (Steps{1, 2, 3, 4, 5}));
  folder.keep(3, folder.name_of(1));
  EXPECT_EQ(steps(folder), (Steps{1, 3, 4, 5}));
  folder.keep(2);
  EXPECT_EQ(steps(folder), (Steps{4, 5}));
  folder.keep(9);
  EXPECT_EQ(steps(folder), (Steps{4, 5}));
}

TEST_F(FolderTest, LaterOnesMoveAside) {
  const Folder folder(folder_path_ + "/run/checkpoints");
  folder.create();
  for (const std::int64_t step : {1, 2, 3}) save_step(folder, step);
  EXPECT_EQ(folder.move_later_aside(3), "");
  EXPECT_EQ(folder.move_later_aside(1), folder.path() + ".1");
  EXPECT_EQ(steps(folder), (Steps{1}));
  EXPECT_EQ(steps(Folder(folder.path() + ".1")), (Steps{2, 3}));
  save_step(folder, 2);
  EXPECT_EQ(folder.move_later_aside(1), folder.path() + ".2");
}

TEST_F(FolderTest, DamagedOnesDoNotPushOutWholeOnes) {
  const Folder folder(folder_path_);
  for (const std::int64_t step : {1, 2, 3, 4, 5}) save_step(folder, step);
  const std::vector<std::string> damaged = {folder.name_of(3), folder.name_of(5)};
  folder.keep(2, folder.name_of(4), damaged);
  EXPECT_EQ(steps(folder), (Steps{2, 3, 4, 5}));
  folder.keep(1, folder.name_of(4), damaged);
  EXPECT_EQ(steps(folder), (Steps{4, 5}));
}

TEST_F(FolderTest, TheNewestWholeOneIsFound) {
  const Folder folder(folder_path_);
  EXPECT_FALSE(find_newest_whole(world(), folder, true).reader.has_value());
  for (const std::int64_t step : {1, 2, 3}) save_step(folder, step);
  std::filesystem::resize_file(folder.name_of(3), 1000);
  flip_byte_of(folder.name_of(2), "parameters/");
  FoundCheckpoint found = find_newest_whole(world(), folder, true);
  ASSERT_TRUE(found.reader.has_value());
  EXPECT_EQ(found.reader->path(), folder.name_of(1));
  ASSERT_EQ(found.damaged.size(), 2u);
  EXPECT_EQ(found.damaged[0].entry.step, 3);
  for (const char* word : {"step-00000002.h5", "parameters/", "checksum", "expected"})
    EXPECT_NE(found.damaged[1].error.find(word), std::string::npos) << found.damaged[1].error;
  // Without looking at the content nothing is wrong with the second.
  EXPECT_EQ(find_newest_whole(world(), folder, false).reader->path(), folder.name_of(2));
  std::filesystem::remove(folder.name_of(1));
  test::expect_error(Code::io, {"none of the 2", folder_path_},
                     [&] { find_newest_whole(world(), folder, true); });
}

}  // namespace
}  // namespace tessera::checkpoint
