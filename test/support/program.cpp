// SPDX-License-Identifier: Apache-2.0
#include "support/program.hpp"

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <sys/wait.h>
#include <unistd.h>

#include <fmt/format.h>

namespace tessera::test {

Outcome run_shell(const std::string& command) {
  const TemporaryFolder folder;
  const std::string line =
      fmt::format("( {} ) > '{}' 2> '{}' < /dev/null", command, folder / "out", folder / "error");
  const int status = std::system(line.c_str());
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return {code, slurp(folder / "out"), slurp(folder / "error")};
}

Outcome tessera(const std::string& arguments, int ranks) {
  const std::string program = TESSERA_PROGRAM;
  if (ranks == 1) return run_shell(fmt::format("'{}' {}", program, arguments));
  return run_shell(fmt::format("'{}' -n {} '{}' {}", TESSERA_MPIRUN, ranks, program, arguments));
}

std::string slurp(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void spit(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

nlohmann::json read_json(const std::filesystem::path& path) {
  return nlohmann::json::parse(slurp(path));
}

std::vector<nlohmann::json> read_json_lines(const std::filesystem::path& path) {
  std::istringstream text(slurp(path));
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

}  // namespace tessera::test
