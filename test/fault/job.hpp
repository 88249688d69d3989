// SPDX-License-Identifier: Apache-2.0
// A job under mpirun that a test watches and hurts.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <sys/types.h>
#include <vector>

namespace tessera::test {

struct JobRequest {
  std::vector<std::string> arguments;  // mpirun first
  std::map<std::string, std::string> environment;
  std::string output;  // file that gets what it prints
};

/// Starts at construction, is killed at destruction.
class Job {
 public:
  explicit Job(const JobRequest& request);
  ~Job();
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  /// The exit code, or nothing if it goes on after `limit`.
  std::optional<int> wait(std::chrono::milliseconds limit);
  /// Waits until another line with this text was printed; false if the job ended or took too long.
  bool wait_for_line(const std::string& text, std::chrono::milliseconds limit);
  /// SIGKILL to one of `ranks` processes, as soon as all of them are there; `pick(n)` chooses.
  /// False if the job ended before.
  bool kill_one(int ranks, const std::function<int(int)>& pick);
  /// Ends a launcher whose ranks are gone. Open MPI 4.1 waits for ever when one is killed while it
  /// makes itself known.
  std::optional<int> end_launcher();
  /// True when no rank of the job is left.
  bool all_gone(std::chrono::milliseconds limit) const;

 private:
  std::vector<pid_t> ranks_alive();

  pid_t launcher_ = -1;
  std::string program_;
  std::string output_;
  std::size_t searched_ = 0;  // bytes of the output that wait_for_line has seen
  std::optional<int> code_;
  std::vector<pid_t> seen_;
};

}  // namespace tessera::test
