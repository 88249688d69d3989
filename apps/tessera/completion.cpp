// SPDX-License-Identifier: Apache-2.0
// tessera completion: prints what lets a shell complete subcommands, options and their choices,
// made from the tables of options.
#include <iostream>
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "apps/tessera/option_tables.hpp"
#include "apps/tessera/session.hpp"

namespace tessera::app {
namespace {

using Tables = std::vector<SubcommandTable>;

bool is_number(const OptionRow& option) {
  return option.value == "N" || option.value == "INT" || option.value == "FLOAT" ||
         option.value == "UINT";
}

std::vector<std::string> names_of(const SubcommandTable& table) {
  std::vector<std::string> names;
  for (const OptionRow& option : table.options)
    if (!option.positional) names.insert(names.end(), option.names.begin(), option.names.end());
  return names;
}

// What may follow an option that takes no file: a word of a list, or a number, which nothing
// completes.
std::string bash_values(const Tables& tables) {
  std::string lists;
  std::vector<std::string> numbers;
  for (const SubcommandTable& table : tables)
    for (const OptionRow& option : table.options)
      for (const std::string& name : option.names) {
        const std::string where = fmt::format("{},{}", table.name, name);
        if (is_number(option)) numbers.push_back(where);
        if (!option.positional && !option.choices.empty())
          lists += fmt::format("    {}) COMPREPLY=($(compgen -W '{}' -- \"$word\")); return ;;\n",
                               where, fmt::join(option.choices, " "));
      }
  return lists + fmt::format("    {}) return ;;\n", fmt::join(numbers, "|"));
}

std::string bash_completion(const Tables& tables) {
  std::vector<std::string> subcommands;
  std::string options;
  for (const SubcommandTable& table : tables) {
    subcommands.push_back(table.name);
    options +=
        fmt::format("    {}) options='{}' ;;\n", table.name, fmt::join(names_of(table), " "));
  }
  return fmt::format(R"(# bash completion of tessera, made by: tessera completion bash
_tessera() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} options=
  COMPREPLY=()
  if (( COMP_CWORD == 1 )); then
    COMPREPLY=($(compgen -W '{} --help --version' -- "$word"))
    return
  fi
  case ${{COMP_WORDS[1]}},$previous in
{}  esac
  case ${{COMP_WORDS[1]}} in
{}  esac
  if [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$options --help" -- "$word"))
  else
    COMPREPLY=($(compgen -f -- "$word"))
  fi
}}
complete -o filenames -F _tessera tessera
)",
                     fmt::join(subcommands, " "), bash_values(tables), options);
}

// Inside of single quotes, in an argument of _arguments or _describe.
std::string zsh_text(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\'')
      out += "'\\''";
    else if (c == '[' || c == ']' || c == ':' || c == '\\')
      out += fmt::format("\\{}", c);
    else
      out += c;
  }
  return out;
}

std::string zsh_action(const OptionRow& option) {
  if (!option.choices.empty()) return fmt::format("({})", fmt::join(option.choices, " "));
  return is_number(option) ? "" : "_files";
}

std::string zsh_option(const OptionRow& option) {
  std::string lines;
  for (const std::string& name : option.names) {
    lines += fmt::format("      '*{}[{}]", name, zsh_text(option.text));
    if (!option.value.empty())
      lines += fmt::format(":{}:{}", zsh_text(option.value), zsh_action(option));
    lines += "' \\\n";
  }
  return lines;
}

std::string zsh_completion(const Tables& tables) {
  std::string subcommands, cases;
  for (const SubcommandTable& table : tables) {
    subcommands += fmt::format("    '{}:{}'\n", table.name, zsh_text(table.text));
    cases += fmt::format("    {}) _arguments \\\n", table.name);
    for (const OptionRow& option : table.options)
      if (!option.positional) cases += zsh_option(option);
    cases += "      '--help[Print help]' '*:file:_files' ;;\n";
  }
  return fmt::format(R"(#compdef tessera
# zsh completion of tessera, made by: tessera completion zsh
_tessera() {{
  local -a subcommands=(
{}  )
  if (( CURRENT == 2 )); then
    _describe 'subcommand' subcommands
    return
  fi
  local subcommand=$words[2]
  shift words
  (( CURRENT-- ))
  case $subcommand in
{}  esac
}}
_tessera "$@"
)",
                     subcommands, cases);
}

}  // namespace

void add_completion(CLI::App& app, Command& command) {
  auto shell = std::make_shared<std::string>();
  CLI::App* sub =
      app.add_subcommand("completion", "Print what lets your shell complete this program");
  sub->footer(
      "bash: source <(tessera completion bash)\n"
      "zsh:  tessera completion zsh >~/.zfunc/_tessera, with ~/.zfunc in fpath\n"
      "cmake --install puts both where the shells look.");
  sub->add_option("shell", *shell, "bash or zsh")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh"}))
      ->type_name("SHELL");
  sub->callback([&app, &command, shell] {
    command = [&app, shell] {
      const Tables tables = option_tables(app);
      if (launcher_rank() == 0)
        std::cout << (*shell == "bash" ? bash_completion(tables) : zsh_completion(tables));
      return 0;
    };
  });
}

}  // namespace tessera::app
