// wels adapt.
#pragma once
#include "apps/commands.h"

namespace wels {

void add_adapt(CLI::App& app, Command& run);

}  // namespace wels
