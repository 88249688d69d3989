// SPDX-License-Identifier: Apache-2.0
// Threads that work behind the program's own.
#pragma once

#include <functional>
#include <thread>

namespace tessera {

/// Runs `work`, which must not throw, on a new thread that no signal is delivered to: handlers of
/// the host program expect its own threads. If there is no thread to be had, the work is done at
/// once and the result is not joinable.
std::thread start_background_thread(const std::function<void()>& work);

}  // namespace tessera
