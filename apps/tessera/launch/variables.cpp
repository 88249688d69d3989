// SPDX-License-Identifier: Apache-2.0
#include "apps/tessera/launch/variables.hpp"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <unistd.h>

#include <fmt/format.h>

#include "tessera/base/error.hpp"

#include "apps/tessera/launch/text.hpp"

namespace tessera::app {
namespace {

bool is_name(std::string_view text) {
  const auto fits = [](char c) { return c == '_' || std::isalnum(static_cast<unsigned char>(c)); };
  return !text.empty() && !std::isdigit(static_cast<unsigned char>(text[0])) &&
         std::all_of(text.begin(), text.end(), fits);
}

std::string without_quotes(const std::string& value) {
  const bool quoted = value.size() >= 2 && value.front() == value.back() &&
                      (value.front() == '"' || value.front() == '\'');
  return quoted ? value.substr(1, value.size() - 2) : value;
}

}  // namespace

Variables parse_variables(std::string_view text, const std::string& source) {
  Variables variables;
  int number = 0;
  for (const std::string& line : split(text, '\n')) {
    ++number;
    const std::string content = trim(line);
    if (content.empty() || content[0] == '#') continue;
    const auto equals = content.find('=');
    const std::string name = trim(content.substr(0, equals));
    TESSERA_CHECK(equals != std::string::npos && is_name(name), Code::invalid_argument,
                  fmt::format("{}:{}: '{}' is not NAME=value", source, number, content));
    variables.emplace_back(name, without_quotes(trim(content.substr(equals + 1))));
  }
  return variables;
}

std::vector<std::string> names_with_prefixes(const std::vector<std::string>& prefixes) {
  std::vector<std::string> names;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const std::string_view name = text.substr(0, text.find('='));
    // Shells export functions under names that mpirun cannot pass on.
    const auto begins = [&](const std::string& prefix) { return name.starts_with(prefix); };
    if (is_name(name) && std::any_of(prefixes.begin(), prefixes.end(), begins))
      names.emplace_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

const std::vector<std::string>& default_prefixes() {
  static const std::vector<std::string> prefixes = {"TESSERA_", "OMP_", "GOMP_",          "KMP_",
                                                    "NCCL_",    "UCX_", "ONEDNN_",        "DNNL_",
                                                    "HDF5_",    "PATH", "LD_LIBRARY_PATH"};
  return prefixes;
}

std::vector<std::string> default_variable_files() {
  const char* home = std::getenv("HOME");
  const char* deepspeed = std::getenv("DS_ENV_FILE");
  std::vector<std::string> files;
  for (const std::string& folder : {std::string(home != nullptr ? home : "."), std::string(".")})
    for (const char* name : {deepspeed != nullptr ? deepspeed : ".deepspeed_env", ".tessera_env"}) {
      const std::filesystem::path path = std::filesystem::path(folder) / name;
      if (!std::filesystem::is_regular_file(path)) continue;
      // Started in the home folder, both are the same.
      const auto same = [&](const std::string& file) {
        return std::filesystem::equivalent(file, path);
      };
      if (std::none_of(files.begin(), files.end(), same)) files.push_back(path.string());
    }
  return files;
}

}  // namespace tessera::app
