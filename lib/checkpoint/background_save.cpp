// SPDX-License-Identifier: Apache-2.0
#include "tessera/checkpoint/background_save.hpp"

#include <csignal>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

namespace tessera::checkpoint {
namespace {

/// While one lives, signals are not delivered to this thread, nor to threads that it starts.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_{};
};

std::vector<TensorRecord> copy_on_all(Communicator& group, Snapshot& snapshot,
                                      const std::vector<TensorRecord>& tensors) {
  const Traffic::Pause pause(group.traffic());
  std::vector<TensorRecord> copies;
  agreeing(group, [&] { copies = snapshot.copy(tensors); });
  return copies;
}

}  // namespace

BackgroundSave::BackgroundSave(Communicator& group, const std::string& path, const Header& header,
                               const std::vector<TensorRecord>& tensors, const State& state,
                               Snapshot& snapshot, const WriteOptions& options)
    : writer_(group, path, header, copy_on_all(group, snapshot, tensors), state, options) {
  writer_.create();
  try {
    start();
  } catch (const std::system_error&) {
    writer_.write();  // no thread to be had: at once, then
    written_ = true;
  }
}

BackgroundSave::~BackgroundSave() {
  if (thread_.joinable()) thread_.join();
}

/// Handlers of the host program expect its own threads.
void BackgroundSave::start() {
  const SignalsBlocked blocked;
  thread_ = std::thread([this] {
    writer_.write();
    written_.store(true, std::memory_order_release);
  });
}

WriteReport BackgroundSave::commit() {
  if (thread_.joinable()) thread_.join();
  return writer_.commit();
}

}  // namespace tessera::checkpoint
