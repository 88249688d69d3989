// SPDX-License-Identifier: Apache-2.0
// The program's subcommands and options as plain tables, for its man page and shell completions.
#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace tessera::app {

struct OptionRow {
  std::vector<std::string> names;    ///< "-H", "--hostfile"; one without dashes for a positional
  std::string value;                 ///< "FILE"; empty for a flag
  std::vector<std::string> choices;  ///< when only these are accepted
  std::string text;
  std::string fallback;  ///< the default, if it is told
  bool positional = false;
};

struct SubcommandTable {
  std::string name;
  std::string text;
  std::string footer;
  std::vector<OptionRow> options;  ///< without --help
};

/// What `--help` shows, in that order. Hidden subcommands and options are left out.
std::vector<SubcommandTable> option_tables(const CLI::App& app);

}  // namespace tessera::app
