// SPDX-License-Identifier: Apache-2.0
// The cache through which counted accesses go.
#include "emulation/traffic.hpp"

#include <algorithm>
#include <span>

#include "emulation/memory.hpp"

namespace tessera::emulation {

namespace {

constexpr std::uint64_t kSectorBytes = 32;
constexpr std::size_t kWays = 16;
constexpr int kSetBits = 11;
constexpr std::size_t kSets = std::size_t{1} << kSetBits;
static_assert(kSets * kWays * kSectorBytes == std::size_t{1} << 20);

TrafficCounter* counter = nullptr;

/// Scattered, so that rows whose length is a power of two do not meet in a few sets.
std::size_t set_of(std::uint64_t sector) {
  return static_cast<std::size_t>(sector * 0x9e3779b97f4a7c15u >> (64 - kSetBits));
}

}  // namespace

TrafficCounter::TrafficCounter() : lines_(kSets * kWays) {
  counter = this;
}

TrafficCounter::~TrafficCounter() {
  counter = nullptr;
}

TrafficCounter::Moved TrafficCounter::touch(std::uint64_t sector, bool is_write) {
  const std::span<Line> set(lines_.data() + set_of(sector) * kWays, kWays);
  auto line = std::find_if(set.begin(), set.end(), [&](Line l) { return l.sector == sector; });
  const bool missed = line == set.end();
  if (missed) {
    *--line = {.sector = sector};
  }
  const Moved moved{.read = missed && !is_write, .written = is_write && !line->changed};
  line->changed |= is_write;
  std::rotate(set.begin(), line, line + 1);
  return moved;
}

void count_traffic_of(const std::string& kernel) {
  if (counter != nullptr) {
    counter->kernels_.push_back({.kernel = kernel});
  }
}

void count_access(const void* address, std::size_t bytes, bool is_write) {
  if (counter == nullptr || counter->kernels_.empty() || bytes == 0 ||
      !is_emulated_memory(address)) {
    return;
  }
  KernelTraffic& kernel = counter->kernels_.back();
  (is_write ? kernel.stored : kernel.loaded) += bytes;
  const auto begin = reinterpret_cast<std::uint64_t>(address);
  const std::uint64_t last = (begin + bytes - 1) / kSectorBytes;
  for (std::uint64_t sector = begin / kSectorBytes; sector <= last; ++sector) {
    const TrafficCounter::Moved moved = counter->touch(sector, is_write);
    kernel.read += moved.read ? kSectorBytes : 0;
    kernel.written += moved.written ? kSectorBytes : 0;
  }
}

}  // namespace tessera::emulation
