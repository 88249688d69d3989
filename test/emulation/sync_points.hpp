// SPDX-License-Identifier: Apache-2.0
// Barriers and waits in the code of kernels, and waits of a program for streams and events, so that
// tests can take them away one at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "emulation/warp.hpp"

namespace tessera::emulation {

/// A place where threads of a kernel wait for each other or for a copy, or where a program calls
/// cudaStreamWaitEvent, cudaStreamSynchronize or cudaEventSynchronize.
struct SyncPoint {
  bool in_kernel = true;
  std::string kernel;  ///< or the call's name
  std::string place;   ///< "norm.cuh:215", or "libtessera_comm.so+0x1234"
  /// Behind the calls in the kernel's code. Compilers make several of a barrier when they part the
  /// paths that lead to it; these belong to one, since threads from all of them meet there. Those
  /// that they make of a loop or a function do not.
  std::vector<const void*> calls;
};

/// While one lives (only one may), it notes the points that kernels and the program come to. They
/// pass the one that is missing as if it were not there.
class SyncPoints {
 public:
  SyncPoints();
  explicit SyncPoints(SyncPoint missing);
  SyncPoints(const SyncPoints&) = delete;
  SyncPoints& operator=(const SyncPoints&) = delete;
  ~SyncPoints();

  const std::vector<SyncPoint>& seen() const { return seen_; }

 private:
  friend bool waits_at(const void* call, const Site& site, std::uint64_t meeting);
  friend bool program_waits_at(const char* call);
  bool is_missing(const std::string& kernel, const void* call) const;
  /// Its index.
  std::size_t note(const SyncPoint& point);
  void join(std::size_t point, std::uint64_t meeting);

  SyncPoint missing_;
  std::vector<SyncPoint> seen_;
  std::uint64_t meeting_ = 0;
  std::size_t met_at_ = 0;  // an index of seen_
};

/// Must a thread wait that calls from here? Calls with the same `meeting`, unless it is 0, are the
/// same barrier.
bool waits_at(const void* call, const Site& site, std::uint64_t meeting);

/// Must the program wait in this call? Places are told apart by who called the library of streams.
bool program_waits_at(const char* call);

}  // namespace tessera::emulation
