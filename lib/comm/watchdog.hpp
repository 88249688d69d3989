// SPDX-License-Identifier: Apache-2.0
// The last resort against a hang inside an MPI call that cannot be interrupted.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

namespace tessera::comm {

/// One thread per process, started by the first section. It never calls MPI: when a section
/// outlives its deadline it says who is stuck in what and ends the process, which the launcher
/// turns into the end of the job.
class Watchdog {
 public:
  /// While one lives, the calling thread is inside something that must end within `seconds` (0: no
  /// limit).
  class Section {
   public:
    Section(const std::string& what, double seconds);
    ~Section();
    Section(const Section&) = delete;
    Section& operator=(const Section&) = delete;

   private:
    std::int64_t number_ = -1;
  };

  static void set_rank(int rank);

 private:
  using Clock = std::chrono::steady_clock;
  struct Entry {
    std::string what;
    double seconds;
    Clock::time_point deadline;
  };

  static Watchdog& instance();
  std::int64_t enter(const std::string& what, double seconds);
  void leave(std::int64_t number);
  void watch();
  void end_process(const Entry& entry) const;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::int64_t, Entry> entries_;
  std::int64_t next_ = 0;
  int rank_ = 0;
  bool running_ = false;
};

}  // namespace tessera::comm
