// SPDX-License-Identifier: Apache-2.0
// Checks what an error says.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "tessera/base/error.hpp"

namespace tessera::test {

/// `body` must throw an Error with this code whose message has every one of `parts`.
template <typename Body>
void expect_error(Code code, std::initializer_list<std::string_view> parts, Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_STREQ(to_string(error.code()), to_string(code)) << message;
    for (const std::string_view part : parts)
      EXPECT_NE(message.find(part), std::string::npos) << "'" << part << "' is not in: " << message;
    return;
  }
  ADD_FAILURE() << "no error was thrown";
}

}  // namespace tessera::test
