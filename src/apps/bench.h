// The measurements of `wels bench`, one file each.
#pragma once
#include "apps/commands.h"

namespace wels {

void add_bench_train(CLI::App* bench, Command& run);
void add_bench_infer(CLI::App* bench, Command& run);
void add_bench_serve(CLI::App* bench, Command& run);

}  // namespace wels
