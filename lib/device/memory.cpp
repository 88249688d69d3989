// SPDX-License-Identifier: Apache-2.0
#include "tessera/device/memory.hpp"

#include <algorithm>
#include <fstream>
#include <limits>
#include <map>
#include <mutex>
#include <string>
#include <unistd.h>
#include <utility>

#include <fmt/format.h>

#include "tessera/base/number_format.hpp"
#include "tessera/device/device.hpp"

namespace tessera {

std::string Device::to_string() const {
  return type == DeviceType::cpu ? "cpu" : fmt::format("cuda:{}", index);
}

const char* to_string(Purpose purpose) {
  switch (purpose) {
    case Purpose::parameters:
      return "parameters";
    case Purpose::gradients:
      return "gradients";
    case Purpose::optimizer:
      return "optimizer";
    case Purpose::activations:
      return "activations";
    case Purpose::buckets:
      return "buckets";
    case Purpose::gathered:
      return "gathered";
    case Purpose::snapshot:
      return "snapshot";
    case Purpose::workspace:
      return "workspace";
  }
  return "unknown";
}

void MemoryLedger::Counter::add(std::int64_t bytes) {
  const std::int64_t now = current.fetch_add(bytes) + bytes;
  std::int64_t seen = peak.load();
  while (now > seen && !peak.compare_exchange_weak(seen, now)) {
  }
}

void MemoryLedger::add(Purpose purpose, std::size_t bytes) {
  at(purpose).add(static_cast<std::int64_t>(bytes));
  total_.add(static_cast<std::int64_t>(bytes));
}

void MemoryLedger::remove(Purpose purpose, std::size_t bytes) {
  at(purpose).add(-static_cast<std::int64_t>(bytes));
  total_.add(-static_cast<std::int64_t>(bytes));
}

void MemoryLedger::reset_peaks() {
  for (Counter& counter : counters_) counter.peak = counter.current.load();
  total_.peak = total_.current.load();
}

std::string MemoryLedger::to_string() const {
  std::string table = fmt::format("{:<12} {:>12} {:>12}\n", "purpose", "now", "peak");
  const auto row = [&](const char* name, std::int64_t now, std::int64_t top) {
    table += fmt::format("{:<12} {:>12} {:>12}\n", name, format_bytes(static_cast<double>(now)),
                         format_bytes(static_cast<double>(top)));
  };
  for (int i = 0; i < kPurposes; ++i) {
    const auto purpose = static_cast<Purpose>(i);
    row(tessera::to_string(purpose), current(purpose), peak(purpose));
  }
  row("total", current_total(), peak_total());
  return table;
}

MemoryLedger& memory_ledger(Device device) {
  // Never destroyed: buffers in other statics may outlive it.
  static auto* mutex = new std::mutex;
  static auto* ledgers = new std::map<std::pair<DeviceType, int>, MemoryLedger>;
  const std::lock_guard lock(*mutex);
  return (*ledgers)[{device.type, device.index}];
}

namespace {

// Memory of the file cache that the container may take back at once.
std::int64_t reclaimable_cache() {
  std::ifstream file("/sys/fs/cgroup/memory.stat");
  std::string key;
  for (std::int64_t bytes = 0; file >> key >> bytes;)
    if (key == "inactive_file") return bytes;
  return 0;
}

}  // namespace

std::int64_t available_host_memory() {
  std::int64_t available = std::numeric_limits<std::int64_t>::max();
  std::ifstream info("/proc/meminfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("MemAvailable:")) available = std::stoll(line.substr(13)) * 1024;
  std::ifstream limit_file("/sys/fs/cgroup/memory.max"), used_file("/sys/fs/cgroup/memory.current");
  std::int64_t limit = 0, used = 0;
  if (limit_file >> limit && used_file >> used)
    available = std::min(available, limit - used + reclaimable_cache());
  return std::max<std::int64_t>(available, 0);
}

}  // namespace tessera
