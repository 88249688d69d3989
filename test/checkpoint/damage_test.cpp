// SPDX-License-Identifier: Apache-2.0
// Full and read-only disks, short transfers, and files that are damaged, cut or not ours.
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tessera/base/file.hpp"

#include "base/transfer_limit.hpp"
#include "checkpoint/checkpoint_fixture.hpp"
#include "checkpoint/hdf5.hpp"
#include "support/private_disk.hpp"

namespace {

/// While set, transfers are interrupted or move a part of what they are asked for, as system
/// calls may.
std::atomic<bool> hesitant{false};
std::atomic<int> transfers{0};

/// Bytes to move now; 0: be interrupted.
std::size_t moved(std::size_t bytes) {
  if (!hesitant || bytes < 2) return bytes;
  switch (transfers++ % 3) {
    case 0:
      return 0;
    case 1:
      return bytes / 2;
    default:
      return bytes - 1;
  }
}

}  // namespace

// In place of the C library's.
extern "C" ssize_t pwrite(int file, const void* data, std::size_t bytes, off_t at) {
  const std::size_t now = moved(bytes);
  if (now > 0 || bytes == 0) return ::syscall(SYS_pwrite64, file, data, now, at);
  errno = EINTR;
  return -1;
}
extern "C" ssize_t pread(int file, void* data, std::size_t bytes, off_t at) {
  const std::size_t now = moved(bytes);
  if (now > 0 || bytes == 0) return ::syscall(SYS_pread64, file, data, now, at);
  errno = EINTR;
  return -1;
}

namespace tessera::checkpoint {
namespace {

using test::expect_error;

class DamageTest : public CheckpointTest {
 protected:
  void TearDown() override {
    hesitant = false;
    CheckpointTest::TearDown();
  }

  /// Saving must fail on every rank, mention `parts`, and leave what was there.
  void expect_failed_save(const std::string& name, std::initializer_list<std::string_view> parts) {
    const std::size_t files = files_in_folder();
    path_ = folder_path_ + "/" + name;
    expect_error(Code::io, parts, [&] { save_test_file(); });
    EXPECT_EQ(files_in_folder(), files);
  }
  bool on_all_ranks(bool here) {
    return world().all_reduce_scalar(std::int64_t{here}, Reduction::min) != 0;
  }
  /// Moves the test's folder to a disk of its own, which rank 0 holds; false without root.
  bool use_private_disk(std::int64_t bytes) {
    if (rank() == 0) disk_ = std::make_unique<test::PrivateDisk>(bytes);
    if (!on_all_ranks(rank() != 0 || disk_->mounted())) return false;
    folder_path_ = world().broadcast_text(disk_ ? disk_->path() : "", 0);
    path_ = folder_path_ + "/step-00000001.h5";
    return true;
  }
  void expect_whole(const std::string& path) {
    const Reader reader(world(), path);
    EXPECT_TRUE(reader.verify(world()).empty());
  }
  /// A copy of the saved file for this rank alone.
  std::string own_copy() {
    world().barrier();
    const std::string copy = fmt::format("{}/copy-{}.h5", folder_path_, rank());
    std::filesystem::copy_file(path_, copy);
    return copy;
  }

  std::unique_ptr<test::PrivateDisk> disk_;
};

class OpenFile {
 public:
  explicit OpenFile(const std::string& path) : descriptor_(::open(path.c_str(), O_RDWR)) {}
  ~OpenFile() { ::close(descriptor_); }
  void flip(std::int64_t at, int mask) const {
    unsigned char byte = 0;
    ASSERT_EQ(::pread(descriptor_, &byte, 1, at), 1);
    byte = static_cast<unsigned char>(byte ^ mask);
    ASSERT_EQ(::pwrite(descriptor_, &byte, 1, at), 1);
  }

 private:
  int descriptor_;
};

TEST_F(DamageTest, AFullDiskFailsTheSaveAndNothingElse) {
  if (!use_private_disk(1 << 20)) GTEST_SKIP() << "mounting needs root; limits are tested below";
  const std::string before = path_;
  const std::int64_t bytes = save_test_file().file_bytes;
  const std::int64_t used = disk_ ? disk_->bytes_used() : 0;
  for (std::int64_t left = 0; left < bytes - 4096; left += 4096) {
    SCOPED_TRACE(fmt::format("{} bytes left of {}", left, bytes));
    EXPECT_TRUE(!disk_ || disk_->resize(used + left));
    world().barrier();
    expect_failed_save("step-00000002.h5", {"step-00000002.h5", "No space left"});
    EXPECT_EQ(disk_ ? disk_->bytes_used() : 0, used);
  }
  expect_whole(before);
  EXPECT_TRUE(!disk_ || disk_->resize(1 << 20));
  world().barrier();
  save_test_file();
  expect_whole(path_);
}

TEST_F(DamageTest, AReadOnlyFolderFailsTheSaveAndIsReadFrom) {
  const bool disk = use_private_disk(1 << 20);
  const std::string before = path_;
  save_test_file();
  world().barrier();
  EXPECT_TRUE(!disk_ || !disk || disk_->make_read_only());
  if (!disk && rank() == 0)
    std::filesystem::permissions(folder_path_, std::filesystem::perms(0555));
  expect_failed_save("step-00000002.h5",
                     {"step-00000002.h5", disk ? "Read-only file system" : "Permission denied"});
  expect_whole(before);
  world().barrier();
  if (!disk && rank() == 0)
    std::filesystem::permissions(folder_path_, std::filesystem::perms(0755));
}

TEST_F(DamageTest, ALimitOnFileSizesIsAnErrorAndNoSignal) {
  save_test_file();
  const std::string before = path_;
  struct rlimit old {};
  ::getrlimit(RLIMIT_FSIZE, &old);
  for (const rlim_t limit : {0, 1000, 20000, 40000}) {
    SCOPED_TRACE(limit);
    struct rlimit lower = old;
    lower.rlim_cur = limit;
    ::setrlimit(RLIMIT_FSIZE, &lower);
    expect_failed_save("step-00000002.h5",
                       {"step-00000002.h5", "ulimit -f", std::to_string(limit)});
    ::setrlimit(RLIMIT_FSIZE, &old);
  }
  expect_whole(before);
  save_test_file();
  expect_whole(path_);
}

// Runs that are long enough to go past the page cache, too.
std::vector<TestTensor> long_tensors() {
  std::vector<TestTensor> tensors;
  for (const int elements : {300001, 7, 400000}) {
    TestTensor tensor{fmt::format("parameters/w{}", elements), {elements}, DType::fp32, {}};
    tensor.bytes.resize(static_cast<std::size_t>(elements) * 4);
    for (std::size_t i = 0; i < tensor.bytes.size(); ++i)
      tensor.bytes[i] = static_cast<std::byte>((i * 2654435761u) >> 13 & 0x3f);
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

TEST_F(DamageTest, TransfersMayMoveLessThanAskedFor) {
  const auto tensors = long_tensors();
  const auto save_and_read = [&](const std::string& name) {
    SCOPED_TRACE(name);
    const std::string path = folder_path_ + "/" + name;
    save(world(), path, test_header(), sliced(tensors, rank(), ranks()), test_state());
    const Reader reader(world(), path);
    for (const TestTensor& tensor : tensors) {
      std::vector<std::byte> bytes(tensor.bytes.size());
      reader.read(tensor.path, 0, tensor.shape.numel(), tensor.dtype, bytes.data());
      EXPECT_TRUE(bytes == tensor.bytes) << tensor.path;
    }
    EXPECT_TRUE(reader.verify(world()).empty());
    world().barrier();
    return read_text(path);
  };
  const std::string whole = save_and_read("whole.h5");
  hesitant = true;
  EXPECT_TRUE(save_and_read("hesitant.h5") == whole);
  hesitant = false;
  EXPECT_GT(transfers, 10);
  const std::size_t before = largest_transfer();
  for (const std::size_t most : {1000u, 4096u, 70000u}) {
    largest_transfer() = most;
    EXPECT_TRUE(save_and_read(fmt::format("most-{}.h5", most)) == whole);
  }
  largest_transfer() = before;
}

// All of the file: superblock, object headers, attributes, texts, padding, tensors, trailer.
TEST_F(DamageTest, EveryFlippedByteIsFound) {
  save_test_file();
  const std::string copy = own_copy();
  const Reader reader(copy);
  const auto in_tensor = [&](std::int64_t at) {
    for (const DatasetInfo& info : reader.datasets()) {
      const auto bytes = info.shape.numel() * static_cast<std::int64_t>(size_of(info.dtype));
      if (at >= info.offset && at < info.offset + bytes) return true;
    }
    return false;
  };
  const OpenFile file(copy);
  const auto size = static_cast<std::int64_t>(std::filesystem::file_size(copy));
  int in_tensors = 0;
  for (std::int64_t at = rank(); at < size; at += ranks()) {
    const int mask = 1 << (at % 8);
    file.flip(at, mask);
    if (in_tensor(at)) {
      ASSERT_EQ(reader.verify().size(), 1u) << "byte " << at;
      if (++in_tensors % 101 == 0) {
        ASSERT_EQ(Reader(copy).verify().size(), 1u) << "byte " << at;
      }
    } else {
      ASSERT_NO_FATAL_FAILURE(
          expect_error(Code::io, {copy, "damaged"}, [&] { const Reader again(copy); }))
          << "byte " << at;
    }
    file.flip(at, mask);
  }
  EXPECT_TRUE(Reader(copy).verify().empty());
  EXPECT_GT(in_tensors, 1000);
}

TEST_F(DamageTest, EveryOtherLengthIsFound) {
  const std::int64_t size = save_test_file().file_bytes;
  const std::string copy = own_copy();
  const std::string text = read_text(copy);
  std::int64_t hdf5_end = 0;  // as the superblock names it
  std::memcpy(&hdf5_end, text.data() + 28, sizeof hdf5_end);
  std::vector<std::int64_t> lengths;
  for (std::int64_t length = rank(); length < size; length += 251 * ranks())
    lengths.push_back(length);
  for (std::int64_t length = hdf5_end - 20 + rank(); length < size + 40; length += ranks())
    if (length != size && length != hdf5_end) lengths.push_back(length);
  for (const std::int64_t length : lengths) {
    std::filesystem::resize_file(copy, 0);
    std::ofstream(copy, std::ios::binary) << text.substr(0, static_cast<std::size_t>(length));
    if (length > size) std::filesystem::resize_file(copy, static_cast<std::uintmax_t>(length));
    expect_error(Code::io, {copy}, [&] { const Reader reader(copy); });
    if (HasFailure()) FAIL() << length << " bytes of " << size;
  }
}

TEST_F(DamageTest, WhatIsNotACheckpointIsSaid) {
  save_test_file();
  world().barrier();
  const auto refuse = [&](const std::string& name, std::initializer_list<std::string_view> parts) {
    world().barrier();
    SCOPED_TRACE(name);
    expect_error(Code::io, parts, [&] { Reader reader(world(), folder_path_ + "/" + name); });
  };
  if (rank() == 0) {
    const hdf5::Handle foreign(
        H5Fcreate((folder_path_ + "/foreign.h5").c_str(), H5F_ACC_EXCL, H5P_DEFAULT, H5P_DEFAULT),
        H5Fclose, "create");
    std::ofstream(folder_path_ + "/empty.h5").flush();
    std::filesystem::copy_file(path_, folder_path_ + "/newer.h5");
    const hdf5::Handle newer(
        H5Fopen((folder_path_ + "/newer.h5").c_str(), H5F_ACC_RDWR, H5P_DEFAULT), H5Fclose, "open");
    hdf5::write_integer_attribute(newer.id(), "format_version", 2);
  }
  refuse("empty.h5", {"empty.h5", "not an HDF5 file"});
  refuse("foreign.h5", {"foreign.h5", "not a Tessera checkpoint"});
  refuse("newer.h5", {"newer.h5", "format version 2", "up to 1", "newer"});
}

TEST_F(DamageTest, CommitBeforeWriteIsAnError) {
  const auto tensors = test_tensors();
  Writer writer(world(), path_, test_header(), sliced(tensors, rank(), ranks()), test_state());
  writer.create();
  expect_error(Code::io, {"write()"}, [&] { writer.commit(); });
}

}  // namespace
}  // namespace tessera::checkpoint
