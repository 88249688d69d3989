// SPDX-License-Identifier: Apache-2.0
// Checks of HTML that our programs write.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace tessera::test {

inline int count(std::string_view text, std::string_view part) {
  int found = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != std::string_view::npos; ++at) ++found;
  return found;
}

/// "" if every element is closed in order, else what is wrong. The content of scripts and style
/// sheets is passed over.
inline std::string markup_problem(std::string_view text) {
  std::vector<std::string> open;
  for (std::size_t at = 0; (at = text.find('<', at)) != std::string_view::npos;) {
    const std::size_t end = text.find('>', at);
    if (end == std::string_view::npos) return "a tag does not end";
    const std::string_view tag = text.substr(at + 1, end - at - 1);
    if (tag.find('<') != std::string_view::npos) return "< inside <" + std::string(tag);
    at = end;
    const std::string name(tag.substr(0, tag.find_first_of(" /", 1)));
    if (name == "meta" || name == "!DOCTYPE" || tag.ends_with('/')) continue;
    if (name.starts_with('/')) {
      if (open.empty() || open.back() != name.substr(1)) return "unexpected <" + name + ">";
      open.pop_back();
      continue;
    }
    open.push_back(name);
    if (name == "script" || name == "style")
      at = std::min(text.find("</" + name, end), text.size());
  }
  return open.empty() ? "" : "<" + open.back() + "> is not closed";
}

}  // namespace tessera::test
