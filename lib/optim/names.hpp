// SPDX-License-Identifier: Apache-2.0
// Type names are compared in lower case.
#pragma once

#include <algorithm>
#include <cctype>
#include <string>

namespace tessera::optim {

inline std::string lower_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

}  // namespace tessera::optim
