// SPDX-License-Identifier: Apache-2.0
// Saving in the background: the file holds what was there when the save began.
#include "tessera/checkpoint/background_save.hpp"

#include <chrono>
#include <fstream>
#include <future>
#include <sstream>
#include <thread>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"

#include "checkpoint/checkpoint_fixture.hpp"

namespace tessera::checkpoint {
namespace {

std::string content(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

TEST_F(CheckpointTest, InTheBackgroundTheFileIsTheSame) {
  save_test_file();
  const std::string expected = content(path_);
  path_ = folder_path_ + "/step-00000101.h5";
  auto tensors = test_tensors();
  const std::int64_t before = memory_ledger(Device{}).current(Purpose::snapshot);
  {
    Snapshot snapshot;
    for (int time = 0; time < 2; ++time) {
      BackgroundSave save(world(), path_, test_header(), sliced(tensors, rank(), ranks()),
                          test_state(), snapshot, {.replace = true});
      save.wait_for_copy();  // Training goes on.
      for (TestTensor& tensor : tensors)
        std::fill(tensor.bytes.begin(), tensor.bytes.end(), std::byte{0x55});
      const WriteReport report = save.commit();
      EXPECT_GT(report.write_seconds, 0);
      EXPECT_TRUE(save.written());
      EXPECT_EQ(content(path_), expected);
      tensors = test_tensors();
      world().barrier();
    }
    std::int64_t bytes = 0;
    for (const TensorRecord& record : sliced(tensors, rank(), ranks()))
      for (const Piece& piece : record.pieces)
        bytes += round_up(piece.count * static_cast<std::int64_t>(size_of(record.dtype)), 64);
    EXPECT_EQ(memory_ledger(Device{}).current(Purpose::snapshot) - before, bytes);
  }
  EXPECT_EQ(memory_ledger(Device{}).current(Purpose::snapshot), before);
  EXPECT_EQ(files_in_folder(), 2u);
}

TEST_F(CheckpointTest, ConstructionDoesNotWaitForTheCopy) {
  std::promise<void> may_be_read;
  const std::shared_future<void> ready = may_be_read.get_future().share();
  const auto tensors = test_tensors();
  auto records = sliced(tensors, rank(), ranks());
  for (TensorRecord& record : records)
    for (Piece& piece : record.pieces)
      if (piece.fill)
        piece.fill = [fill = piece.fill, ready](std::int64_t at, std::int64_t count, void* target) {
          ready.wait();
          fill(at, count, target);
        };
  Snapshot snapshot;
  BackgroundSave save(world(), path_, test_header(), records, test_state(), snapshot);
  EXPECT_FALSE(save.written());
  std::thread reader([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    may_be_read.set_value();  // wakes who waits for the copy
  });
  save.wait_for_copy();
  reader.join();
  save.commit();
  EXPECT_TRUE(Reader(path_).verify().empty());
}

TEST_F(CheckpointTest, AnErrorOfTheCopyIsThrownByCommitOnAllRanks) {
  const auto tensors = test_tensors();
  auto records = sliced(tensors, rank(), ranks());
  for (TensorRecord& record : records)
    for (Piece& piece : record.pieces)
      if (rank() == 0) {
        piece.data = nullptr;
        piece.fill = [](std::int64_t, std::int64_t, void*) { throw Error(Code::io, "unreadable"); };
      }
  Snapshot snapshot;
  {
    BackgroundSave save(world(), path_, test_header(), records, test_state(), snapshot);
    save.wait_for_copy();
    test::expect_error(Code::io, {"unreadable"}, [&] { save.commit(); });
  }
  EXPECT_EQ(files_in_folder(), 0u);
}

TEST_F(CheckpointTest, ConstructionDoesNotWaitForTheDisk) {
  std::promise<void> disk_is_ready;
  const std::shared_future<void> ready = disk_is_ready.get_future().share();
  fault_hook() = [&](const char* point) {
    if (std::string(point) == "write") ready.wait();
  };
  const auto tensors = test_tensors();
  Snapshot snapshot;
  BackgroundSave save(world(), path_, test_header(), sliced(tensors, rank(), ranks()), test_state(),
                      snapshot);
  EXPECT_FALSE(save.written());
  EXPECT_FALSE(std::filesystem::exists(path_));
  disk_is_ready.set_value();
  save.commit();
  EXPECT_TRUE(Reader(path_).verify().empty());
}

TEST_F(CheckpointTest, AnErrorInTheBackgroundIsThrownByCommitOnAllRanks) {
  fault_hook() = [&](const char* point) {
    if (rank() == ranks() - 1 && std::string(point) == "flush") throw Error(Code::io, "disk full");
  };
  const auto tensors = test_tensors();
  Snapshot snapshot;
  {
    BackgroundSave save(world(), path_, test_header(), sliced(tensors, rank(), ranks()),
                        test_state(), snapshot);
    test::expect_error(Code::io, {"disk full"}, [&] { save.commit(); });
  }
  EXPECT_EQ(files_in_folder(), 0u);
}

TEST_F(CheckpointTest, WithoutCommitThereIsNoFile) {
  const auto tensors = test_tensors();
  Snapshot snapshot;
  {
    const BackgroundSave save(world(), path_, test_header(), sliced(tensors, rank(), ranks()),
                              test_state(), snapshot);
  }
  EXPECT_EQ(files_in_folder(), 0u);
}

}  // namespace
}  // namespace tessera::checkpoint
