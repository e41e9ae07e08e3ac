// How the program is to be called: what is wrong with a call, said as all errors are, and `wels
// help`.
#pragma once
#include <CLI/CLI.hpp>

#include "apps/commands.h"
#include "base/error.h"

namespace wels {

// Rules of all flags of all commands: numbers are finite; of a flag that takes one value the last
// one counts, so that scripts can be given other settings behind theirs; and a flag that may be
// repeated takes one value at a time where positional arguments may follow it. After the commands
// are added.
void tighten_flags(CLI::App& app);

// What the parser found, in a line: the flag, what is wrong with its value, what would be right.
Error usage_error(const CLI::App& app, const CLI::ParseError& e);

// wels help [COMMAND], as --help.
void add_help(CLI::App& app, Command& run);

}  // namespace wels
