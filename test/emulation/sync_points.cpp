// SPDX-License-Identifier: Apache-2.0
// The list of the places where kernels wait.
#include "emulation/sync_points.hpp"

#include <algorithm>
#include <array>
#include <dlfcn.h>
#include <execinfo.h>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "emulation/executor.hpp"

namespace tessera::emulation {

namespace {

SyncPoints* points = nullptr;

bool holds(const SyncPoint& point, const std::string& kernel, const void* call) {
  return std::find(point.calls.begin(), point.calls.end(), call) != point.calls.end() &&
         point.kernel == kernel;
}

struct Caller {
  const void* address = nullptr;
  std::string place;
};

// Who called the streams of the device layer, which call the runtime for everybody.
Caller find_caller() {
  std::array<void*, 32> frames{};
  const int count = backtrace(frames.data(), static_cast<int>(frames.size()));
  for (int i = 0; i < count; ++i) {
    Dl_info module{};
    const void* address = frames[static_cast<std::size_t>(i)];
    if (dladdr(address, &module) == 0) {
      continue;
    }
    const std::string_view path = module.dli_fname;
    const std::string_view name = path.substr(path.rfind('/') + 1);
    if (!name.starts_with("libtessera_cuda_emulation") && !name.starts_with("libtessera_device")) {
      const auto offset = static_cast<const char*>(address) - static_cast<char*>(module.dli_fbase);
      return {address, fmt::format("{}+{:#x}", name, offset)};
    }
  }
  return {};
}

}  // namespace

SyncPoints::SyncPoints() : SyncPoints(SyncPoint{}) {}

SyncPoints::SyncPoints(SyncPoint missing) : missing_(std::move(missing)) {
  points = this;
}

SyncPoints::~SyncPoints() {
  points = nullptr;
}

bool SyncPoints::is_missing(const std::string& kernel, const void* call) const {
  return holds(missing_, kernel, call);
}

std::size_t SyncPoints::note(const SyncPoint& point) {
  const auto place = std::find_if(seen_.begin(), seen_.end(), [&](const SyncPoint& known) {
    return holds(known, point.kernel, point.calls.front());
  });
  if (place != seen_.end()) {
    return static_cast<std::size_t>(place - seen_.begin());
  }
  seen_.push_back(point);
  return seen_.size() - 1;
}

// All of one meeting come before the next, so the last one is enough to know.
void SyncPoints::join(std::size_t point, std::uint64_t meeting) {
  if (std::exchange(meeting_, meeting) != meeting) {
    met_at_ = point;
  } else if (point != met_at_) {
    const auto [into, from] = std::minmax(point, met_at_);
    auto& calls = seen_[into].calls;
    calls.insert(calls.end(), seen_[from].calls.begin(), seen_[from].calls.end());
    seen_.erase(seen_.begin() + static_cast<std::ptrdiff_t>(from));
    met_at_ = into;
  }
}

bool waits_at(const void* call, const Site& site, std::uint64_t meeting) {
  if (points == nullptr) {
    return true;
  }
  const std::string& kernel = running_kernel();
  if (points->is_missing(kernel, call)) {
    return false;
  }
  const std::size_t point = points->note({true, kernel, to_string(site), {call}});
  if (meeting != 0) {
    points->join(point, meeting);
  }
  return true;
}

bool program_waits_at(const char* call) {
  if (points == nullptr) {
    return true;
  }
  const Caller caller = find_caller();
  if (points->is_missing(call, caller.address)) {
    return false;
  }
  points->note({false, call, caller.place, {caller.address}});
  return true;
}

}  // namespace tessera::emulation
