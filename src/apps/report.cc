// wels report: the HTML report of a run, or of several with their curves over each other; the
// figures they end with as a table on the standard output.
#include <fmt/format.h>

#include "apps/commands.h"
#include "train/report.h"

namespace wels {

void add_report(CLI::App& app, Command& run) {
  CLI::App* sub = app.add_subcommand("report", "plots of one run, or of several compared");
  struct Flags {
    std::vector<std::string> runs;
    std::string out = "report.html";
  };
  auto f = std::make_shared<Flags>();
  sub->add_option("runs", f->runs, "run folders")->required();
  sub->add_option("-o,--out", f->out, "the file to write")->capture_default_str();
  sub->callback([f, &run] {
    run = [f] {
      write_report(f->out, f->runs);
      fmt::print("{}\n{}\n", report_table(f->runs), f->out);
      return 0;
    };
  });
}

}  // namespace wels
