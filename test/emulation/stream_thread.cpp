// SPDX-License-Identifier: Apache-2.0
// Hands work to the threads of streams.
#include "emulation/stream_thread.hpp"

#include <atomic>
#include <exception>
#include <thread>
#include <utility>

namespace tessera::emulation {

// This file is compiled without the sanitizer: it does not see these atomics.
struct StreamThread::State {
  enum Phase { idle, working, finished, ending };
  std::atomic<Phase> phase{idle};
  const std::function<void()>* task = nullptr;
  std::exception_ptr error;

  void serve() {
    while (true) {
      Phase now = phase.load();
      while (now != working && now != ending) {
        phase.wait(now);
        now = phase.load();
      }
      if (now == ending) {
        return;
      }
      try {
        (*task)();
      } catch (...) {
        error = std::current_exception();
      }
      phase.store(finished);
      phase.notify_all();
    }
  }
};

StreamThread::StreamThread() {
  if constexpr (race::kWatched) {
    state_ = std::make_shared<State>();
    // Detached: joining it would order what the program did not.
    std::thread([state = state_] { state->serve(); }).detach();
  }
}

StreamThread::~StreamThread() {
  if constexpr (race::kWatched) {
    state_->phase.store(State::ending);
    state_->phase.notify_all();
  }
}

void StreamThread::run(const std::function<void()>& task) {
  if constexpr (!race::kWatched) {
    task();
    return;
  }
  State& state = *state_;
  state.task = &task;
  state.phase.store(State::working);
  state.phase.notify_all();
  while (state.phase.load() != State::finished) {
    state.phase.wait(State::working);
  }
  state.phase.store(State::idle);
  if (state.error) {
    std::rethrow_exception(std::exchange(state.error, nullptr));
  }
}

}  // namespace tessera::emulation
