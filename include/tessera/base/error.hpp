// SPDX-License-Identifier: Apache-2.0
// The one exception type of the library and the checks that throw it.
#pragma once

#include <stdexcept>
#include <string>

namespace tessera {

/// What kind of failure it was; callers branch on this, people read the message.
enum class Code {
  invalid_argument,  ///< the caller passed something impossible
  invalid_config,    ///< a run file, command line or configuration key is wrong
  not_supported,     ///< asked for something that this version or build cannot do
  out_of_memory,
  io,            ///< a file could not be read or written, or its content is damaged
  not_saved,     ///< a run ended because its state could not be saved
  mpi,           ///< an MPI call failed
  cuda,          ///< a CUDA call failed
  nccl,          ///< a NCCL call failed
  timeout,       ///< a rank did not arrive in time
  peer_failed,   ///< another rank reported an error first
  not_a_number,  ///< training produced a NaN or an infinity
  internal,      ///< a defect of this library
};

const char* to_string(Code code);

/// Message: what was wrong, the values, what to do. No stack trace, no trailing newline.
class Error : public std::runtime_error {
 public:
  Error(Code code, const std::string& message) : std::runtime_error(message), code_(code) {}
  Code code() const noexcept { return code_; }

  /// The same failure as seen from further out: "context: message".
  Error in_context(const std::string& context) const {
    return Error(code_, context + ": " + what());
  }

  /// True for what a user can mend in the input: the program exits with 2.
  bool is_bad_input() const noexcept {
    return code_ == Code::invalid_argument || code_ == Code::invalid_config ||
           code_ == Code::not_supported;
  }

 private:
  Code code_;
};

[[noreturn]] void fail(Code code, const std::string& message);

}  // namespace tessera

/// Always on. `message` is evaluated only on failure.
#define TESSERA_CHECK(condition, code, message) \
  do {                                          \
    if (!(condition)) [[unlikely]]              \
      ::tessera::fail(code, message);           \
  } while (false)
