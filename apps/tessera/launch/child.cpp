// SPDX-License-Identifier: Apache-2.0
#include "apps/tessera/launch/child.hpp"

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <optional>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

#include "tessera/base/error.hpp"
#include "tessera/base/timer.hpp"

namespace tessera::app {
namespace {

// As long as ranks are deaf to a second signal: launchers send two in a row.
constexpr double kPatienceSeconds = 5;

// The signals that are waited for, blocked while this lives: nothing then runs in a handler.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigemptyset(&set_);
    for (const int signal : {SIGCHLD, SIGTERM, SIGUSR1, SIGUSR2, SIGINT, SIGHUP})
      sigaddset(&set_, signal);
    sigprocmask(SIG_BLOCK, &set_, &previous_);
  }
  ~BlockedSignals() { restore(); }
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;

  void restore() const { sigprocmask(SIG_SETMASK, &previous_, nullptr); }
  siginfo_t wait() const {
    siginfo_t info{};
    while (sigwaitinfo(&set_, &info) < 0) {
    }
    return info;
  }

 private:
  sigset_t set_{};
  sigset_t previous_{};
};

// In a group of its own, the child does not get what is sent to ours (by `timeout`, by a shell):
// mpirun would end the ranks at once. But what reads from a terminal must be in front there.
bool reads_terminal() {
  return isatty(STDIN_FILENO) == 1;
}

[[noreturn]] void become(const CommandLine& command, int failure_pipe) {
  if (!reads_terminal()) setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGTERM);  // no ranks without the launcher that was to watch them
  for (const auto& [name, value] : command.variables) setenv(name.c_str(), value.c_str(), 1);
  std::vector<char*> words;
  for (const std::string& word : command.words) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  execvp(words[0], words.data());
  const int error = errno;
  [[maybe_unused]] const auto written = write(failure_pipe, &error, sizeof error);
  _exit(127);
}

// Errors if the program could not be started: the pipe closes by itself when it could.
pid_t start(const CommandLine& command, const BlockedSignals& signals) {
  int pipe_ends[2];
  TESSERA_CHECK(pipe2(pipe_ends, O_CLOEXEC) == 0, Code::io,
                fmt::format("pipe: {}", std::strerror(errno)));
  const pid_t child = fork();
  TESSERA_CHECK(child >= 0, Code::io, fmt::format("fork: {}", std::strerror(errno)));
  if (child == 0) {
    signals.restore();
    become(command, pipe_ends[1]);
  }
  close(pipe_ends[1]);
  int error = 0;
  const auto got = read(pipe_ends[0], &error, sizeof error);
  close(pipe_ends[0]);
  if (got > 0) waitpid(child, nullptr, 0);
  TESSERA_CHECK(got <= 0, Code::io,
                fmt::format("cannot start '{}': {}. Is its folder in PATH, its module loaded?",
                            command.words[0], std::strerror(error)));
  return child;
}

class SignalTranslator {
 public:
  explicit SignalTranslator(pid_t child) : child_(child) {}

  void pass_on(const siginfo_t& info) {
    // The terminal sends to the whole foreground group: a child in it has that one already.
    const bool from_terminal = info.si_code == SI_KERNEL;
    if (from_terminal && reads_terminal()) return;
    kill(child_, info.si_signo == SIGTERM ? translate_termination() : info.si_signo);
  }

 private:
  int translate_termination() {
    if (!first_) {
      first_.emplace();
      fmt::print(
          stderr,
          "tessera launch: SIGTERM: asks the ranks to save and stop (SIGUSR1); once more, in "
          "five seconds or later, ends them\n");
      return SIGUSR1;
    }
    return first_->seconds() < kPatienceSeconds ? SIGUSR1 : SIGTERM;
  }

  pid_t child_;
  std::optional<Timer> first_;
};

}  // namespace

int run_child(const CommandLine& command) {
  const BlockedSignals signals;
  const pid_t child = start(command, signals);
  SignalTranslator translator(child);
  for (;;) {
    const siginfo_t info = signals.wait();
    if (info.si_signo != SIGCHLD) {
      translator.pass_on(info);
      continue;
    }
    int status = 0;
    if (waitpid(child, &status, WNOHANG) != child) continue;
    if (WIFEXITED(status)) return WEXITSTATUS(status);
    if (WIFSIGNALED(status)) return 128 + WTERMSIG(status);
  }
}

}  // namespace tessera::app
