// SPDX-License-Identifier: Apache-2.0
// Processes through fork, and /proc to find the launcher's children.
#include "fault/job.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <stdexcept>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <fmt/format.h>

#include "support/program.hpp"

namespace tessera::test {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kBetweenLooks{2};

/// Calls look() until it gives true or the time is over.
template <typename Look>
bool until(std::chrono::milliseconds limit, Look&& look) {
  const Clock::time_point end = Clock::now() + limit;
  while (!look()) {
    if (Clock::now() >= end) return false;
    std::this_thread::sleep_for(kBetweenLooks);
  }
  return true;
}

[[noreturn]] void become(const JobRequest& request) {
  const int output = ::open(request.output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
  const int input = ::open("/dev/null", O_RDONLY);
  ::dup2(input, 0);
  ::dup2(output, 1);
  ::dup2(output, 2);
  for (const auto& [name, value] : request.environment) ::setenv(name.c_str(), value.c_str(), 1);
  std::vector<char*> arguments;
  for (const std::string& argument : request.arguments)
    arguments.push_back(const_cast<char*>(argument.c_str()));  // NOLINT: execv keeps them
  arguments.push_back(nullptr);
  ::execv(arguments[0], arguments.data());
  ::_exit(127);
}

/// The parent of a process; -1 if it is gone or has ended.
pid_t parent_of(const std::string& process) {
  const std::string text = slurp("/proc/" + process + "/stat");
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string::npos || name_end + 4 >= text.size()) return -1;
  if (text[name_end + 2] == 'Z') return -1;
  return static_cast<pid_t>(std::atoi(text.c_str() + name_end + 4));
}

bool runs_program(const std::string& process, const std::string& program) {
  return slurp("/proc/" + process + "/cmdline").starts_with(program + '\0');
}

}  // namespace

Job::Job(const JobRequest& request) : output_(request.output) {
  for (const std::string& argument : request.arguments)
    if (argument.ends_with("/tessera")) program_ = argument;
  fs::remove(output_);
  launcher_ = ::fork();
  if (launcher_ < 0) throw std::runtime_error("fork failed");
  if (launcher_ == 0) become(request);
}

Job::~Job() {
  ranks_alive();
  if (!code_) {
    ::kill(launcher_, SIGTERM);  // mpirun then ends its children
    if (!wait(std::chrono::seconds(10))) end_launcher();
  }
  for (const pid_t rank : seen_)
    if (runs_program(std::to_string(rank), program_)) ::kill(rank, SIGKILL);
}

std::optional<int> Job::wait(std::chrono::milliseconds limit) {
  until(limit, [&] {
    int status = 0;
    if (!code_ && ::waitpid(launcher_, &status, WNOHANG) == launcher_)
      code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return code_.has_value();
  });
  return code_;
}

bool Job::wait_for_line(const std::string& text, std::chrono::milliseconds limit) {
  bool found = false;
  until(limit, [&] {
    const bool ended = wait(std::chrono::milliseconds(0)).has_value();
    const std::string output = slurp(output_);
    const std::size_t at = output.find(text, searched_);
    found = at != std::string::npos;
    if (found) searched_ = at + text.size();
    return found || ended;
  });
  return found;
}

std::optional<int> Job::end_launcher() {
  ::kill(launcher_, SIGKILL);
  return wait(std::chrono::seconds(10));
}

std::vector<pid_t> Job::ranks_alive() {
  std::vector<pid_t> ranks;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string process = entry.path().filename().string();
    if (!std::isdigit(static_cast<unsigned char>(process[0]))) continue;
    if (parent_of(process) == launcher_ && runs_program(process, program_))
      ranks.push_back(static_cast<pid_t>(std::stoi(process)));
  }
  for (const pid_t rank : ranks)
    if (std::ranges::find(seen_, rank) == seen_.end()) seen_.push_back(rank);
  std::ranges::sort(ranks);
  return ranks;
}

bool Job::kill_one(int ranks, const std::function<int(int)>& pick) {
  const int victim = pick(ranks);
  std::vector<pid_t> alive;
  until(std::chrono::seconds(30), [&] {
    alive = ranks_alive();
    return static_cast<int>(alive.size()) >= ranks || wait(std::chrono::milliseconds(0));
  });
  if (static_cast<int>(alive.size()) < ranks) return false;
  return ::kill(alive[static_cast<std::size_t>(victim)], SIGKILL) == 0;
}

bool Job::all_gone(std::chrono::milliseconds limit) const {
  return until(limit, [&] {
    return std::ranges::none_of(
        seen_, [&](pid_t rank) { return runs_program(std::to_string(rank), program_); });
  });
}

}  // namespace tessera::test
