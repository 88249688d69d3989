// SPDX-License-Identifier: Apache-2.0
#include "tessera/base/background_thread.hpp"

#include <system_error>

#include "base/signals_blocked.hpp"

namespace tessera {

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
