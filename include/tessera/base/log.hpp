// SPDX-License-Identifier: Apache-2.0
// Log lines for people: rank 0 speaks, other ranks only warn. A sink can be added (the run's
// log.txt).
#pragma once

#include <functional>
#include <string>

namespace tessera {

enum class LogLevel { debug, info, warning, error };

/// Process-wide. Before a Runtime exists the process counts as rank 0 of 1.
void set_log_rank(int rank, int size);
void set_log_level(LogLevel level);
/// Receives every line that is (or would be) printed and every rank's warnings, without a newline.
/// Pass nullptr to remove.
void set_log_sink(std::function<void(LogLevel, const std::string&)> sink);

/// False: nothing is printed, only the sink hears, as a guest in somebody else's program should.
void set_log_printing(bool on);

/// Standard output, rank 0 only.
void log_info(const std::string& message);
void log_debug(const std::string& message);
/// Standard error, any rank; prefixed with the rank when there is more than one.
void log_warning(const std::string& message);
/// As log_warning, but only the first time this process says `message`.
void log_warning_once(const std::string& message);
void log_error(const std::string& message);

}  // namespace tessera
