// SPDX-License-Identifier: Apache-2.0
// Codes and texts of errors, and the log, as C sees them.
#include "c/guard.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <limits>
#include <new>
#include <string>

#include "tessera/base/cpu_features.hpp"
#include "tessera/base/log.hpp"
#include "tessera/base/version.hpp"

namespace tessera::c {
namespace {

thread_local std::string last_error;
// What is said when there is no memory for the text.
thread_local bool text_is_lost = false;

std::atomic<int> thread_limit{std::numeric_limits<int>::max()};

tessera_code remember(tessera_code code, const char* message) noexcept {
  try {
    last_error = message;
    text_is_lost = false;
  } catch (...) {
    text_is_lost = true;
  }
  return code;
}

tessera_code code_of(Code code) noexcept {
  switch (code) {
    case Code::invalid_argument:
      return TESSERA_INVALID_ARGUMENT;
    case Code::invalid_config:
      return TESSERA_INVALID_CONFIG;
    case Code::not_supported:
      return TESSERA_NOT_SUPPORTED;
    case Code::out_of_memory:
      return TESSERA_OUT_OF_MEMORY;
    case Code::io:
      return TESSERA_IO;
    case Code::not_saved:
      return TESSERA_NOT_SAVED;
    case Code::mpi:
      return TESSERA_MPI;
    case Code::cuda:
      return TESSERA_CUDA;
    case Code::nccl:
      return TESSERA_NCCL;
    case Code::timeout:
      return TESSERA_TIMEOUT;
    case Code::peer_failed:
      return TESSERA_PEER_FAILED;
    case Code::not_a_number:
      return TESSERA_NOT_A_NUMBER;
    case Code::internal:
      return TESSERA_INTERNAL;
  }
  return TESSERA_INTERNAL;
}

}  // namespace

LimitedThreads::LimitedThreads() noexcept : before_(threads()), limited_(before_ > thread_limit) {
  if (limited_) set_threads(thread_limit);
}

LimitedThreads::~LimitedThreads() {
  if (limited_) set_threads(before_);
}

void limit_threads(int ranks_of_node) {
  thread_limit = std::getenv("OMP_NUM_THREADS") != nullptr
                     ? std::numeric_limits<int>::max()
                     : std::max(1, node_cores() / ranks_of_node);
}

}  // namespace tessera::c

using namespace tessera;

tessera_code tessera_keep_exception() noexcept {
  try {
    throw;
  } catch (const Error& error) {
    return c::remember(c::code_of(error.code()), error.what());
  } catch (const std::bad_alloc&) {
    return c::remember(TESSERA_OUT_OF_MEMORY, "there is not enough memory");
  } catch (const std::exception& error) {
    return c::remember(TESSERA_INTERNAL, error.what());
  } catch (...) {
    return c::remember(TESSERA_INTERNAL, "something that is not an exception was thrown");
  }
}

const char* tessera_code_name(tessera_code code) {
  switch (code) {
    case TESSERA_OK:
      return "ok";
    case TESSERA_INVALID_ARGUMENT:
      return "invalid argument";
    case TESSERA_INVALID_CONFIG:
      return "invalid configuration";
    case TESSERA_NOT_SUPPORTED:
      return "not supported";
    case TESSERA_OUT_OF_MEMORY:
      return "out of memory";
    case TESSERA_IO:
      return "file error";
    case TESSERA_NOT_SAVED:
      return "not saved";
    case TESSERA_MPI:
      return "MPI error";
    case TESSERA_CUDA:
      return "CUDA error";
    case TESSERA_NCCL:
      return "NCCL error";
    case TESSERA_TIMEOUT:
      return "timeout";
    case TESSERA_PEER_FAILED:
      return "another rank failed";
    case TESSERA_NOT_A_NUMBER:
      return "not a number";
    case TESSERA_INTERNAL:
      return "internal error";
  }
  return "unknown code";
}

const char* tessera_last_error(void) {
  return c::text_is_lost ? "there is not enough memory for the message" : c::last_error.c_str();
}

const char* tessera_version(void) {
  return version();
}

tessera_code tessera_set_log(tessera_log_function log, void* user) {
  return c::guard([&] {
    set_log_printing(false);
    if (log == nullptr) return set_log_sink(nullptr);
    set_log_sink([log, user](LogLevel level, const std::string& line) {
      log(static_cast<tessera_log_level>(level), line.c_str(), user);
    });
  });
}
