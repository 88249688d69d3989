// SPDX-License-Identifier: Apache-2.0
// Collects what is wrong with a configuration, so that a user sees all of it at once.
#pragma once

#include <string>
#include <vector>

#include "tessera/base/error.hpp"

namespace tessera::config {

class Problems {
 public:
  void add(Code code, std::string message);
  bool none() const { return messages_.empty(); }
  /// One Error with a line for each of the first problems: invalid_config if any is that, else the
  /// first one's code.
  void throw_if_any() const;

 private:
  std::vector<std::string> messages_;
  Code code_ = Code::invalid_config;
};

}  // namespace tessera::config
