// SPDX-License-Identifier: Apache-2.0
#include "config/problems.hpp"

#include <algorithm>

#include <fmt/format.h>

namespace tessera::config {

void Problems::add(Code code, std::string message) {
  if (std::find(messages_.begin(), messages_.end(), message) != messages_.end()) return;
  if (messages_.empty() || code == Code::invalid_config) code_ = code;
  messages_.push_back(std::move(message));
}

void Problems::throw_if_any() const {
  constexpr std::size_t kShown = 8;
  if (none()) return;
  const std::size_t shown = std::min(kShown, messages_.size());
  std::string text = messages_.front();
  for (std::size_t i = 1; i < shown; ++i) text += "\n" + messages_[i];
  if (messages_.size() > shown)
    text += fmt::format("\n… and {} more problems", messages_.size() - shown);
  fail(code_, text);
}

}  // namespace tessera::config
