// SPDX-License-Identifier: Apache-2.0
// Whole-or-absent files, positioned reads and writes, mapped files.
#include "tessera/base/atomic_file.hpp"

#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <unistd.h>

#include <gtest/gtest.h>

#include "tessera/base/file.hpp"
#include "tessera/base/mapped_file.hpp"

#include "support/expect_error.hpp"
#include "support/temporary_folder.hpp"

namespace tessera {
namespace {

using test::expect_error;
using test::TemporaryFolder;

std::size_t files_in(const std::string& folder) {
  const auto begin = std::filesystem::directory_iterator(folder);
  return static_cast<std::size_t>(std::distance(begin, std::filesystem::directory_iterator()));
}

TEST(AtomicFile, HasItsNameOnlyAfterCommit) {
  const TemporaryFolder folder;
  {
    AtomicFile file(folder / "a");
    file.write("hello ");
    file.write("world");
    EXPECT_FALSE(std::filesystem::exists(folder / "a"));
    file.commit();
  }
  EXPECT_EQ(read_text(folder / "a"), "hello world");
  {
    AtomicFile file(folder / "a");
    file.write("half");
  }
  EXPECT_EQ(read_text(folder / "a"), "hello world");
  EXPECT_EQ(files_in(folder.path()), 1u);
  expect_error(Code::io, {"nowhere"}, [&] { AtomicFile file(folder / "nowhere/a"); });
}

TEST(AtomicFile, RenamesWithoutOverwritingUnlessTold) {
  const TemporaryFolder folder;
  folder.file("a", "1");
  folder.file("b", "2");
  expect_error(Code::io, {"/b", "exists"}, [&] { rename_file(folder / "a", folder / "b", false); });
  EXPECT_EQ(read_text(folder / "b"), "2");
  rename_file(folder / "a", folder / "b", true);
  EXPECT_EQ(read_text(folder / "b"), "1");
  rename_file(folder / "b", folder / "c", false);
  EXPECT_EQ(read_text(folder / "c"), "1");
  EXPECT_EQ(files_in(folder.path()), 1u);
}

TEST(AtomicFile, FoldersTakeTheirNameAtOnce) {
  const TemporaryFolder folder;
  folder.file("a/x", "1");
  folder.file("b/x", "2");
  folder.file("b/y", "2");
  expect_error(Code::io, {"/b", "exists"},
               [&] { rename_folder(folder / "a", folder / "b", false); });
  EXPECT_EQ(read_text(folder / "b/x"), "2");
  EXPECT_EQ(read_text(folder / "a/x"), "1");
  rename_folder(folder / "a", folder / "b", true);
  EXPECT_EQ(read_text(folder / "b/x"), "1");
  EXPECT_EQ(files_in(folder / "b"), 1u) << "nothing of the old folder is left";
  rename_folder(folder / "b", folder / "c", true);
  rename_folder(folder / "c", folder / "d", false);
  EXPECT_EQ(read_text(folder / "d/x"), "1");
  EXPECT_EQ(files_in(folder.path()), 1u);
  expect_error(Code::io, {"/e"}, [&] { rename_folder(folder / "missing", folder / "e", false); });
}

TEST(AtomicFile, TemporaryNamesAreKnownAndDiffer) {
  const std::string a = temporary_name("/x/step-1.h5");
  EXPECT_NE(a, temporary_name("/x/step-1.h5"));
  EXPECT_TRUE(is_temporary_name(a));
  EXPECT_TRUE(a.starts_with("/x/step-1.h5.tmp-"));
  EXPECT_FALSE(is_temporary_name("/x.tmp-1/step-1.h5"));
  EXPECT_EQ(folder_of("/a/b"), "/a");
  EXPECT_EQ(folder_of("/a"), "/");
  EXPECT_EQ(folder_of("a"), ".");
}

TEST(AtomicFile, PositionedTransfers) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a", "0123456789");
  const int descriptor = ::open(path.c_str(), O_RDWR);
  ASSERT_GE(descriptor, 0);
  write_at(descriptor, "xy", 2, 3, path);
  char out[4] = {};
  read_at(descriptor, out, 4, 2, path);
  EXPECT_EQ(std::string_view(out, 4), "2xy5");
  expect_error(Code::io, {path, "truncated"}, [&] { read_at(descriptor, out, 4, 8, path); });
  ::close(descriptor);
  const int full = ::open("/dev/full", O_WRONLY);
  if (full >= 0) {
    expect_error(Code::io, {"No space left"}, [&] { write_at(full, "x", 1, 0, "/dev/full"); });
    ::close(full);
  }
}

TEST(MappedFile, ShowsTheFile) {
  const TemporaryFolder folder;
  MappedFile file(folder.file("a", "hello"));
  ASSERT_EQ(file.size(), 5);
  EXPECT_EQ(std::memcmp(file.data(), "hello", 5), 0);
  const MappedFile moved = std::move(file);
  EXPECT_EQ(std::memcmp(moved.data(), "hello", 5), 0);
  moved.release(1, 3);
  EXPECT_EQ(std::memcmp(moved.data(), "hello", 5), 0) << "comes again from the file";
  EXPECT_EQ(MappedFile(folder.file("empty", "")).size(), 0);
  expect_error(Code::io, {"missing"}, [&] { MappedFile missing(folder / "missing"); });
  expect_error(Code::io, {folder.path()}, [&] { MappedFile no_file(folder.path()); });
}

}  // namespace
}  // namespace tessera
