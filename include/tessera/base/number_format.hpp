// SPDX-License-Identifier: Apache-2.0
// Numbers as text: exact for machines, short for people.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace tessera {

/// The shortest decimal that reads back to the same bits; NaN and infinities become null, as JSON
/// has no word for them.
std::string json_number(double value);
std::string json_number(float value);

/// 1536 -> "1.5 KiB"
std::string format_bytes(double bytes);
/// "4096", "200MB", "1.5 GiB" -> bytes: K, M, G, T, P are powers of 1000, followed by i of 1024;
/// upper and lower case mean the same. Errors: invalid_argument saying what is understood.
std::int64_t parse_bytes(std::string_view text);
/// 12345678 -> "12.3 M"
std::string format_count(double count);
/// 83 -> "1:23", 3723 -> "1:02:03"; "?" for infinities and NaN.
std::string format_duration(double seconds);

}  // namespace tessera
