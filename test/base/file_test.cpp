// SPDX-License-Identifier: Apache-2.0
// Small files, read whole and written whole or not at all.
#include "tessera/base/file.hpp"

#include <csignal>
#include <fstream>
#include <sys/resource.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"

namespace tessera {
namespace {

namespace fs = std::filesystem;

class File : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("tessera-file-test-" + std::to_string(::getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::ptrdiff_t entries() const {
    return std::distance(fs::directory_iterator(folder_), fs::directory_iterator());
  }

  fs::path folder_;
};

std::string io_message(const auto& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Code::io);
    return error.what();
  }
  return "nothing was thrown";
}

TEST_F(File, ReadsBackWhatWasWritten) {
  const std::string text = std::string("two\nlines\0and a zero", 21);
  write_text(folder_ / "a", text);
  EXPECT_EQ(read_text(folder_ / "a"), text);
  write_text(folder_ / "a", "");
  EXPECT_EQ(read_text(folder_ / "a"), "");
  EXPECT_EQ(entries(), 1) << "a temporary file was left behind";
}

TEST_F(File, ErrorsNameThePathAndTheReason) {
  const fs::path missing = folder_ / "missing";
  EXPECT_EQ(io_message([&] { read_text(missing); }),
            "cannot read '" + missing.string() + "': No such file or directory");
  EXPECT_EQ(io_message([&] { read_text(folder_); }),
            "cannot read '" + folder_.string() + "': Is a directory");
  EXPECT_NE(io_message([&] { write_text(missing / "a", "text"); }).find("No such file"),
            std::string::npos);
}

TEST_F(File, FailedRenameLeavesNothingBehind) {
  fs::create_directories(folder_ / "a" / "b");
  EXPECT_NE(io_message([&] { write_text(folder_ / "a", "text"); }).find("cannot write"),
            std::string::npos);
  EXPECT_EQ(entries(), 1);
}

TEST_F(File, FullDiskKeepsTheOldText) {
  write_text(folder_ / "a", "old");
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small{100, before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string message =
      io_message([&] { write_text(folder_ / "a", std::string(1000, 'x')); });
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_NE(message.find("File too large"), std::string::npos) << message;
  EXPECT_EQ(read_text(folder_ / "a"), "old");
  EXPECT_EQ(entries(), 1);
}

}  // namespace
}  // namespace tessera
