// SPDX-License-Identifier: Apache-2.0
// Signals that ask for a stop, and what the host program had installed before.
#include "tessera/engine/signals.hpp"

#include <chrono>
#include <csignal>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include <gtest/gtest.h>

#include "support/expect_error.hpp"

namespace tessera::engine {
namespace {

volatile sig_atomic_t plain_calls = 0;
volatile sig_atomic_t detailed_calls = 0;
volatile sig_atomic_t value_seen = 0;

void plain_handler(int) {
  plain_calls = plain_calls + 1;
}
void detailed_handler(int, siginfo_t* info, void* context) {
  detailed_calls = detailed_calls + (context != nullptr ? 1 : 0);
  value_seen = info->si_value.sival_int;
}

void install(int signal, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  sigaction(signal, &action, nullptr);
}
struct sigaction disposition(int signal) {
  struct sigaction now {};
  sigaction(signal, nullptr, &now);
  return now;
}

class SignalsTest : public ::testing::Test {
 protected:
  SignalsTest() {
    plain_calls = 0;
    detailed_calls = 0;
    value_seen = 0;
  }
  ~SignalsTest() override {
    for (const int signal : {SIGUSR1, SIGTERM}) std::signal(signal, SIG_DFL);
  }
};

TEST_F(SignalsTest, BothSignalsAskForAStop) {
  for (const int signal : {SIGUSR1, SIGTERM}) {
    const StopSignals signals;
    EXPECT_FALSE(signals.requested());
    raise(signal);
    EXPECT_TRUE(signals.requested());
    raise(signal);  // at once again: the same request, delivered twice
  }
}

TEST_F(SignalsTest, HandlersOfTheHostProgramAreCalledAndComeBack) {
  install(SIGUSR1, plain_handler);
  struct sigaction action {};
  action.sa_sigaction = detailed_handler;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGTERM, &action, nullptr);
  {
    const StopSignals signals;
    raise(SIGUSR1);
    EXPECT_EQ(plain_calls, 1);
    EXPECT_TRUE(signals.requested());
    sigval value{};
    value.sival_int = 77;
    sigqueue(getpid(), SIGTERM, value);
    EXPECT_EQ(detailed_calls, 1);
    EXPECT_EQ(value_seen, 77);
  }
  raise(SIGUSR1);
  EXPECT_EQ(plain_calls, 2);
  EXPECT_EQ(disposition(SIGUSR1).sa_handler, plain_handler);
  EXPECT_EQ(disposition(SIGTERM).sa_sigaction, detailed_handler);
}

TEST_F(SignalsTest, IgnoredAndDefaultSignalsStaySo) {
  install(SIGUSR1, SIG_IGN);
  install(SIGTERM, SIG_DFL);
  {
    const StopSignals signals;
    raise(SIGUSR1);
    raise(SIGTERM);
    EXPECT_TRUE(signals.requested());
  }
  EXPECT_EQ(disposition(SIGUSR1).sa_handler, SIG_IGN);
  EXPECT_EQ(disposition(SIGTERM).sa_handler, SIG_DFL);
}

TEST_F(SignalsTest, AHandlerThatReplacedOursStays) {
  {
    const StopSignals signals;
    install(SIGUSR1, plain_handler);
  }
  EXPECT_EQ(disposition(SIGUSR1).sa_handler, plain_handler);
}

TEST_F(SignalsTest, ThereIsOneInAProcess) {
  const StopSignals signals;
  test::expect_error(Code::invalid_argument, {"already"}, [] { const StopSignals second; });
}

// In a child process: what it exits with, after two signals `milliseconds` apart.
int exit_after_two_signals(int milliseconds) {
  const pid_t child = fork();
  if (child == 0) {
    const StopSignals signals(0.05);
    raise(SIGUSR1);
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
    raise(SIGTERM);
    _exit(42);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_F(SignalsTest, ASecondSignalAfterTheWaitEndsTheProcess) {
  EXPECT_EQ(exit_after_two_signals(60), 1);
  EXPECT_EQ(exit_after_two_signals(0), 42);
}

}  // namespace
}  // namespace tessera::engine
