// wels bench: what this machine does with a model, next to what it could do at best.
#include "apps/bench.h"

namespace wels {

void add_bench(CLI::App& app, Command& run) {
  CLI::App* bench = app.add_subcommand("bench", "measure speed against this machine's ceiling");
  bench->require_subcommand(1);
  add_bench_train(bench, run);
  add_bench_infer(bench, run);
  add_bench_serve(bench, run);
}

}  // namespace wels
