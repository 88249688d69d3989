// SPDX-License-Identifier: Apache-2.0
// Takes each wait of a program for streams and events away, one at a time, in the emulated CUDA.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cuda_runtime_api.h>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"
#include "tessera/comm/communicator.hpp"

#include "emulation/emulation.hpp"
#include "emulation/sync_points.hpp"

namespace tessera::test {

/// Finds what nobody misses. A trial is made anew for each run; its run() is what may lack a wait,
/// its result() is asked for when the device has come to rest. Collective.
template <typename Make>
class MissingWaits {
 public:
  /// `seeds`: orders of streams to try, for each wait.
  MissingWaits(Communicator& world, std::uint64_t seeds, Make make)
      : world_(world), seeds_(seeds), make_(std::move(make)) {
    result_of({}, 0);  // what is made at first use is there now
    expected_ = result_of({}, 0);
  }

  /// "cudaStreamWaitEvent libtessera_zero.so+0x1234" of each wait on any rank.
  std::set<std::string> all() {
    const std::vector<emulation::SyncPoint> mine = seen();
    std::string text;
    for (const emulation::SyncPoint& point : mine) text += name(point) + '\n';
    std::set<std::string> names;
    for (const std::string& list : world_.all_gather_text(text)) {
      std::istringstream lines(list);
      for (std::string line; std::getline(lines, line);) names.insert(line);
    }
    return names;
  }
  bool depends_on_the_order() { return anywhere(result_of({}, 1) != expected_); }
  /// Does some order give a fault or another result on some rank?
  bool is_missed(const std::string& wait) {
    emulation::SyncPoint missing;
    for (const emulation::SyncPoint& point : seen())
      if (name(point) == wait) missing = point;
    for (std::uint64_t seed = 0; seed < seeds_; ++seed)
      if (anywhere(result_of(missing, seed) != expected_)) return true;
    return false;
  }

 private:
  static std::string name(const emulation::SyncPoint& point) {
    return point.kernel + ' ' + point.place;
  }
  std::vector<emulation::SyncPoint> seen() {
    if (!seen_.empty()) return seen_;
    const auto trial = make_();
    const emulation::SyncPoints points;
    trial->run();
    seen_ = points.seen();
    std::erase_if(seen_, [](const emulation::SyncPoint& point) { return point.in_kernel; });
    return seen_;
  }
  /// The word "fault" if there was one.
  std::string result_of(const emulation::SyncPoint& missing, std::uint64_t seed) {
    bool fault = false;
    const auto former =
        emulation::set_fault_handler([&](const emulation::Fault&) { fault = true; });
    const auto trial = make_();
    emulation::set_seed(seed);
    {
      const emulation::SyncPoints points(missing);
      try {
        trial->run();
      } catch (const Error&) {
        fault = true;  // ranks noticed together that they go apart
      }
    }
    cudaDeviceSynchronize();  // what nobody waited for
    std::string result = trial->result();
    emulation::set_fault_handler(former);
    return fault ? "fault" : result;
  }
  bool anywhere(bool here) {
    std::int32_t value = here ? 1 : 0;
    world_.all_reduce(&value, 1, DType::int32, Reduction::max).wait();
    return value != 0;
  }

  Communicator& world_;
  std::uint64_t seeds_;
  Make make_;
  std::string expected_;
  std::vector<emulation::SyncPoint> seen_;
};

}  // namespace tessera::test
