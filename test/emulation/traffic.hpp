// SPDX-License-Identifier: Apache-2.0
// What kernels move between a GPU's memory and its cache, counted.
//
// Accesses go through a cache of 1 MiB that keeps sectors of 32 bytes and forgets the one unused
// for longest. Memory reads a sector that is read and not there, and writes one for each that
// becomes different from memory. So an array read once counts once, whoever shares its sectors; a
// second walk over an array larger than the cache counts again; and half a sector counts as a
// whole one. GPUs have 40 MiB and more, for hundreds of blocks at a time instead of one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace tessera::emulation {

struct KernelTraffic {
  std::string kernel;
  // Bytes in loads and stores of all threads.
  std::uint64_t loaded = 0;
  std::uint64_t stored = 0;
  // Bytes that memory moved.
  std::uint64_t read = 0;
  std::uint64_t written = 0;
};

/// While one lives (only one may), kernels of libraries that report their accesses are counted, and
/// so are fills. It begins with an empty cache, which stays from kernel to kernel.
class TrafficCounter {
 public:
  TrafficCounter();
  TrafficCounter(const TrafficCounter&) = delete;
  TrafficCounter& operator=(const TrafficCounter&) = delete;
  ~TrafficCounter();

  /// In the order in which they ran.
  const std::vector<KernelTraffic>& kernels() const { return kernels_; }

 private:
  friend void count_traffic_of(const std::string& kernel);
  friend void count_access(const void* address, std::size_t bytes, bool is_write);
  /// Brings a sector into the cache, and says what memory did.
  struct Moved {
    bool read, written;
  };
  Moved touch(std::uint64_t sector, bool is_write);

  struct Line {
    std::uint64_t sector = 0;  // 0: none, an address that nobody has
    bool changed = false;
  };
  std::vector<Line> lines_;  // set by set, the last used first
  std::vector<KernelTraffic> kernels_;
};

/// What follows belongs to this kernel.
void count_traffic_of(const std::string& kernel);
/// A load or store of a thread; counts in emulated memory only.
void count_access(const void* address, std::size_t bytes, bool is_write);

}  // namespace tessera::emulation
