// SPDX-License-Identifier: Apache-2.0
// Full and read-only disks, short transfers, and files that are damaged, cut or not ours.
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <sys/resource.h>
#include <unistd.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tessera/base/file.hpp"

#include "base/transfer_limit.hpp"
#include "checkpoint/checkpoint_fixture.hpp"
#include "checkpoint/hdf5.hpp"
#include "support/private_disk.hpp"

namespace tessera::checkpoint {
namespace {

using test::expect_error;

class DamageTest : public CheckpointTest {
 protected:
  /// Saving anything must fail on every rank, mention `parts`, and leave what was there.
  void expect_failed_save(const std::string& name, std::initializer_list<std::string_view> parts) {
    const std::size_t files = files_in_folder();
    path_ = folder_path_ + "/" + name;
    expect_error(Code::io, parts, [&] { save_test_file(); });
    EXPECT_EQ(files_in_folder(), files);
  }
  bool on_all_ranks(bool here) {
    return world().all_reduce_scalar(std::int64_t{here}, Reduction::min) != 0;
  }
  void flip(const std::string& path, std::int64_t at, int mask) {
    const int file = ::open(path.c_str(), O_RDWR);
    unsigned char byte = 0;
    EXPECT_EQ(::pread(file, &byte, 1, at), 1);
    byte = static_cast<unsigned char>(byte ^ mask);
    EXPECT_EQ(::pwrite(file, &byte, 1, at), 1);
    ::close(file);
  }
};

TEST_F(DamageTest, AFullDiskFailsTheSaveAndNothingElse) {
  std::unique_ptr<test::PrivateDisk> disk;
  if (rank() == 0) disk = std::make_unique<test::PrivateDisk>(std::int64_t{1} << 20);
  if (!on_all_ranks(rank() != 0 || disk->mounted())) GTEST_SKIP() << "mounting needs root";
  folder_path_ = world().broadcast_text(disk ? disk->path() : "", 0);
  path_ = folder_path_ + "/step-00000001.h5";
  const std::int64_t bytes = save_test_file().file_bytes;
  const std::int64_t used = disk ? disk->bytes_used() : 0;
  for (std::int64_t left = 0; left < bytes - 4096; left += 4096) {
    SCOPED_TRACE(fmt::format("{} bytes left of {}", left, bytes));
    EXPECT_TRUE(!disk || disk->resize(used + left));
    world().barrier();
    expect_failed_save("step-00000002.h5", {"step-00000002.h5", "No space left"});
    EXPECT_EQ(disk ? disk->bytes_used() : 0, used);
  }
  EXPECT_TRUE(Reader(folder_path_ + "/step-00000001.h5").verify().empty());
  EXPECT_TRUE(!disk || disk->resize(1 << 20));
  world().barrier();
  save_test_file();
  EXPECT_TRUE(Reader(world(), path_).verify(world()).empty());
  world().barrier();
}

}  // namespace
}  // namespace tessera::checkpoint
