// SPDX-License-Identifier: Apache-2.0
// The list of the places where kernels wait.
#include "emulation/sync_points.hpp"

#include <algorithm>
#include <utility>

#include "emulation/executor.hpp"

namespace tessera::emulation {

namespace {

SyncPoints* points = nullptr;

bool holds(const SyncPoint& point, const std::string& kernel, const void* call) {
  return std::find(point.calls.begin(), point.calls.end(), call) != point.calls.end() &&
         point.kernel == kernel;
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

std::size_t SyncPoints::note(const std::string& kernel, const void* call, const Site& site) {
  const auto place = std::find_if(seen_.begin(), seen_.end(), [&](const SyncPoint& point) {
    return holds(point, kernel, call);
  });
  if (place != seen_.end()) {
    return static_cast<std::size_t>(place - seen_.begin());
  }
  seen_.push_back({.kernel = kernel, .place = to_string(site), .calls = {call}});
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
  const std::size_t point = points->note(kernel, call, site);
  if (meeting != 0) {
    points->join(point, meeting);
  }
  return true;
}

}  // namespace tessera::emulation
