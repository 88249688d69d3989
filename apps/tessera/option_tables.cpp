// SPDX-License-Identifier: Apache-2.0
#include "apps/tessera/option_tables.hpp"

#include <CLI/CLI.hpp>

#include "apps/tessera/launch/text.hpp"

namespace tessera::app {
namespace {

bool is_hidden(const CLI::Option& option) {
  return option.get_group().empty() || option.check_lname("help");
}

OptionRow row_of(const CLI::Option& option) {
  OptionRow row;
  for (const std::string& name : option.get_snames()) row.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) row.names.push_back("--" + name);
  row.positional = row.names.empty();
  row.text = option.get_description();
  row.fallback = option.get_default_str();
  const bool is_flag = option.get_items_expected_max() == 0;
  if (is_flag) return row;
  // CLI11 appends what a check accepts: "NAME:{auto,mpirun}", "N:INT in [1 - 9]".
  const std::string type = option.get_type_name();
  const auto colon = type.find(':'), open = type.find(":{");
  row.value = type.substr(0, colon);
  if (open != std::string::npos)
    row.choices = split(type.substr(open + 2, type.rfind('}') - open - 2), ',');
  if (row.positional) row.names = {row.value};
  return row;
}

}  // namespace

std::vector<SubcommandTable> option_tables(const CLI::App& app) {
  std::vector<SubcommandTable> tables;
  for (const CLI::App* sub : app.get_subcommands({})) {
    if (sub->get_group().empty()) continue;
    SubcommandTable table{sub->get_name(), sub->get_description(), sub->get_footer(), {}};
    if (table.footer == app.get_footer()) table.footer.clear();  // handed down, not its own
    for (const CLI::Option* option : sub->get_options())
      if (!is_hidden(*option)) table.options.push_back(row_of(*option));
    tables.push_back(table);
  }
  return tables;
}

}  // namespace tessera::app
