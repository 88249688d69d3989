// SPDX-License-Identifier: Apache-2.0
#include "tessera/base/background_thread.hpp"

#include <csignal>
#include <system_error>

namespace tessera {
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

}  // namespace

std::thread start_background_thread(const std::function<void()>& work) {
  const SignalsBlocked blocked;
  try {
    return std::thread(work);
  } catch (const std::system_error&) {
    work();
    return {};
  }
}

}  // namespace tessera
