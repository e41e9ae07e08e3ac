// wels report: the HTML report of a run, or of several with their curves over each other; the
// figures they end with as a table on the standard output.
#include <fmt/format.h>

#include <filesystem>

#include "apps/commands.h"
#include "base/error.h"
#include "serve/run_files.h"
#include "train/report.h"

namespace wels {
namespace {

namespace fs = std::filesystem;

// The runs that are meant: of a folder that is none itself those that it holds.
std::vector<std::string> runs_of(const std::vector<std::string>& folders) {
  auto has_lines = [](const std::string& f) { return fs::exists(f + "/metrics.jsonl"); };
  std::vector<std::string> out;
  for (const std::string& f : folders) {
    size_t before = out.size();
    if (has_lines(f)) out.push_back(f);
    if (out.size() > before) continue;
    RunTable below({f}, true);
    for (const RunTable::Run& r : below.scan()) {
      if (has_lines(r.folder)) out.push_back(r.folder);
    }
    if (out.size() == before)
      throw Error(f, "no run there has a metrics.jsonl", "wait for the first step of one");
  }
  return out;
}

}  // namespace

void add_report(CLI::App& app, Command& run) {
  CLI::App* sub = app.add_subcommand("report", "plots of one run, or of several compared");
  struct Flags {
    std::vector<std::string> runs;
    std::string out = "report.html";
  };
  auto f = std::make_shared<Flags>();
  sub->add_option("runs", f->runs, "run folders, or folders that hold some")->required();
  sub->add_option("-o,--out", f->out, "the file to write")->capture_default_str();
  sub->callback([f, &run] {
    run = [f] {
      fmt::print("{}\n{}\n", write_report(f->out, runs_of(f->runs), is_running), f->out);
      return 0;
    };
  });
}

}  // namespace wels
