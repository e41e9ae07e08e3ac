// wels r1: the stages of DeepSeek-R1 (Nature 645:633, fig. 2), or any others, from a recipe.
#include "apps/recipe_run.h"
#include "base/file.h"

namespace wels {
namespace {

struct R1Flags {
  RecipeRunFlags run;
  std::string recipe;
};

}  // namespace

void add_r1(CLI::App& app, Command& run) {
  CLI::App* sub =
      app.add_subcommand("r1", "from a base model to a reasoner, by a recipe of stages");
  auto f = std::make_shared<R1Flags>();
  f->run.out = "r1";
  sub->add_option("recipe", f->recipe, "such as recipes/r1.json")->required();
  f->run.add(sub);
  sub->callback([f, &run] {
    run = [f] { return run_recipe(parse_recipe(read_file(f->recipe), f->recipe), f->run); };
  });
}

}  // namespace wels
