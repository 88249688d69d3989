// SPDX-License-Identifier: Apache-2.0
#include "apps/tessera/launch/text.hpp"

#include <charconv>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

namespace tessera::app {
namespace {

constexpr std::string_view kSpace = " \t\r\n\v\f";
constexpr std::string_view kPlain =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%_+=:,./-";

// Reads one word of a command from `at` on; unquoted white space ends it.
std::string read_word(std::string_view text, std::size_t& at) {
  std::string word;
  char quoted = '\0';
  for (; at < text.size(); ++at) {
    const char c = text[at];
    if (quoted == '\0' && kSpace.find(c) != std::string_view::npos) return word;
    if (c == quoted) {
      quoted = '\0';
    } else if (quoted == '\0' && (c == '\'' || c == '"')) {
      quoted = c;
    } else if (c == '\\' && quoted != '\'' && at + 1 < text.size()) {
      word += text[++at];
    } else {
      word += c;
    }
  }
  TESSERA_CHECK(quoted == '\0', Code::invalid_argument,
                fmt::format("the quote {} does not end in: {}", quoted, text));
  return word;
}

}  // namespace

std::string trim(std::string_view text) {
  const auto begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(kSpace) - begin + 1));
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0;;) {
    const auto end = text.find(separator, begin);
    parts.emplace_back(text.substr(begin, end - begin));
    if (end == std::string_view::npos) return parts;
    begin = end + 1;
  }
}

std::vector<std::string> split_words(std::string_view text) {
  std::vector<std::string> words;
  for (auto begin = text.find_first_not_of(kSpace); begin != std::string_view::npos;) {
    const auto end = text.find_first_of(kSpace, begin);
    words.emplace_back(text.substr(begin, end - begin));
    begin = text.find_first_not_of(kSpace, end);
  }
  return words;
}

std::optional<int> to_number(std::string_view text) {
  int value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end || value < 0) return std::nullopt;
  return value;
}

std::vector<std::string> split_command(std::string_view text) {
  std::vector<std::string> words;
  for (std::size_t at = text.find_first_not_of(kSpace); at < text.size();) {
    words.push_back(read_word(text, at));
    at = text.find_first_not_of(kSpace, at);
  }
  return words;
}

std::string quote(const std::string& word) {
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) return word;
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

}  // namespace tessera::app
