// SPDX-License-Identifier: Apache-2.0
// A small file system of its own for tests of full and read-only disks.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <sched.h>
#include <string>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

namespace tessera::test {

/// Mounts a tmpfs that only this process sees, so that nothing is left when it dies; other
/// processes reach it through path(). Needs root: look at mounted() first. One at a time.
class PrivateDisk {
 public:
  explicit PrivateDisk(std::int64_t bytes) {
    char pattern[] = "/tmp/tessera-disk-XXXXXX";
    if (::mkdtemp(pattern) == nullptr) return;
    folder_ = pattern;
    // Without MS_PRIVATE the mount would appear in everybody's view again.
    mounted_ = ::unshare(CLONE_NEWNS) == 0 &&
               ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
               ::mount("tmpfs", folder_.c_str(), "tmpfs", 0, size(bytes).c_str()) == 0;
  }
  ~PrivateDisk() {
    if (mounted_) ::umount2(folder_.c_str(), MNT_DETACH);
    ::rmdir(folder_.c_str());
  }
  PrivateDisk(const PrivateDisk&) = delete;
  PrivateDisk& operator=(const PrivateDisk&) = delete;

  bool mounted() const { return mounted_; }
  /// As every process of this machine reaches it.
  std::string path() const { return "/proc/" + std::to_string(::getpid()) + "/root" + folder_; }
  bool resize(std::int64_t bytes) {
    return ::mount("tmpfs", folder_.c_str(), "tmpfs", MS_REMOUNT, size(bytes).c_str()) == 0;
  }
  bool make_read_only() {
    return ::mount("tmpfs", folder_.c_str(), "tmpfs", MS_REMOUNT | MS_RDONLY, nullptr) == 0;
  }
  std::int64_t bytes_used() const {
    struct statvfs state {};
    ::statvfs(folder_.c_str(), &state);
    return static_cast<std::int64_t>((state.f_blocks - state.f_bfree) * state.f_frsize);
  }

 private:
  static std::string size(std::int64_t bytes) { return "size=" + std::to_string(bytes); }

  std::string folder_;
  bool mounted_ = false;
};

}  // namespace tessera::test
