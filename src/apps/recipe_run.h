// Runs a recipe (apps/r1_recipe.h) stage by stage: each has a folder, and a mark when it is done,
// so that the same command goes on where it was stopped, to the same bits.
//
//   DIR/03-cold_data/started.json  the settings, and hashes of what it was made from
//   DIR/03-cold_data/done.json     hash of what it made, and what that took
//   DIR/05-rl/evaluation.json      how good its model is, and by which settings
//   DIR/report_card.json, .md      the table at the end
#pragma once
#include <string>

#include "apps/commands.h"
#include "apps/r1_recipe.h"
#include "apps/ui_flags.h"

namespace wels {

struct RecipeRunFlags {
  DeviceFlags device;
  UiFlags ui;
  std::string out, from;  // from: a stage that has changed, it may be run again
  double price_per_hour = 0;
  void add(CLI::App* sub);
};

// The exit code: 130 where it was stopped. Prints the card. Throws Error for settings that a stage
// does not have before anything runs, and what stages throw.
int run_recipe(const Recipe& recipe, const RecipeRunFlags& flags);

}  // namespace wels
