// SPDX-License-Identifier: Apache-2.0
// tessera manual: prints the man page, made from the tables of options.
#include <algorithm>
#include <iostream>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "apps/tessera/launch/text.hpp"
#include "apps/tessera/option_tables.hpp"
#include "apps/tessera/session.hpp"

namespace tessera::app {
namespace {

constexpr const char* kEnvironment = R"(.SH ENVIRONMENT
.TP
.B MPIEXEC
The mpirun that \fBtessera launch\fR starts, when it is not the one in PATH.
.TP
.B TESSERA_CACHE
Folder for tokens of text files that were read before.
.TP
.B DS_ENV_FILE
Name of the file that \fBtessera launch\fR reads in place of \fI.deepspeed_env\fR.
.SH EXIT STATUS
0: done, also when a signal stopped a run after saving. 2: bad input. 1: anything else.
.SH SIGNALS
SIGUSR1 or SIGTERM: all ranks save at the next step, write \fIREQUEUE\fR into the run's folder and end with 0. A second
signal, five seconds or more after the first, ends the program at once.
.SH SEE ALSO
.BR mpirun (1),
.BR srun (1),
.BR sbatch (1)
)";

// Text that roff takes as it is: nothing at the begin of a line may be a request.
std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if ((c == '.' || c == '\'') && (out.empty() || out.back() == '\n')) out += "\\&";
    if (c == '\\')
      out += "\\e";
    else if (c == '-')
      out += "\\-";
    else
      out += c;
  }
  return out;
}

std::string describe_option(const OptionRow& option) {
  std::vector<std::string> names;
  for (const std::string& name : option.names)
    names.push_back(fmt::format("\\f{}{}\\fR", option.positional ? 'I' : 'B', escaped(name)));
  std::string text = fmt::format(".TP\n{}", fmt::join(names, ", "));
  if (!option.positional && !option.value.empty())
    text += fmt::format(" \\fI{}\\fR", escaped(option.value));
  text += "\n" + escaped(option.text);
  if (!option.choices.empty()) text += fmt::format(" (one of {})", fmt::join(option.choices, ", "));
  if (!option.fallback.empty()) text += fmt::format(" [{}]", escaped(option.fallback));
  return text + "\n";
}

std::string describe_subcommand(const SubcommandTable& table) {
  std::string synopsis = fmt::format("\\fBtessera {}\\fR [OPTIONS]", table.name);
  for (const OptionRow& option : table.options)
    if (option.positional) synopsis += fmt::format(" \\fI{}\\fR", escaped(option.value));
  std::string text =
      fmt::format(".SS {}\n{}\n.PP\n{}.\n", table.name, synopsis, escaped(table.text));
  for (const OptionRow& option : table.options) text += describe_option(option);
  // Lines of a footer are as the author broke them.
  if (!table.footer.empty()) text += fmt::format(".PP\n.nf\n{}\n.fi\n", escaped(table.footer));
  return text;
}

std::string manual_page(const CLI::App& app) {
  std::string text = fmt::format(
      ".TH TESSERA 1 \"\" \"{}\" \"User Commands\"\n.SH NAME\ntessera \\- train transformers with "
      "ZeRO under MPI\n.SH SYNOPSIS\n\\fBtessera\\fR \\fISUBCOMMAND\\fR [OPTIONS]\n.br\n\\fBmpirun "
      "\\-n\\fR \\fIRANKS\\fR \\fBtessera\\fR \\fISUBCOMMAND\\fR [OPTIONS]\n.SH DESCRIPTION\n{}\n"
      ".SH SUBCOMMANDS\n",
      version_text(), escaped(app.get_description()));
  for (const SubcommandTable& table : option_tables(app)) text += describe_subcommand(table);
  return text + kEnvironment;
}

}  // namespace

void add_manual(CLI::App& app, Command& command) {
  CLI::App* sub = app.add_subcommand("manual", "Print the man page: tessera manual | man -l -");
  sub->callback([&app, &command] {
    command = [&app] {
      if (launcher_rank() == 0) std::cout << manual_page(app);
      return 0;
    };
  });
}

}  // namespace tessera::app
