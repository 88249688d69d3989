// SPDX-License-Identifier: Apache-2.0
// Runs the tessera program as a user does and looks at what it wrote.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "support/temporary_folder.hpp"

namespace tessera::test {

struct Outcome {
  int exit_code;
  std::string out;
  std::string error;
};

/// Runs a shell command line, waits for it.
Outcome run_shell(const std::string& command);

/// `tessera <arguments>` on `ranks` ranks (1: without a launcher).
Outcome tessera(const std::string& arguments, int ranks = 1);

std::string slurp(const std::filesystem::path& path);
void spit(const std::filesystem::path& path, const std::string& text);
nlohmann::json read_json(const std::filesystem::path& path);
std::vector<nlohmann::json> read_json_lines(const std::filesystem::path& path);

}  // namespace tessera::test
