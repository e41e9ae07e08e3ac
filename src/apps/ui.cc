// wels ui: the training page over run folders; and --ui of the commands that train.
#include <fmt/format.h>

#include <chrono>
#include <thread>

#include "apps/commands.h"
#include "apps/ui_flags.h"
#include "base/error.h"
#include "base/file.h"
#include "base/signal.h"

namespace wels {
namespace {

void print_address(const RunsUi& ui) {
  fmt::print("training page: {}\n", ui.url());
  std::fflush(stdout);
}

int ui_command(const std::vector<std::string>& folders, int port) {
  RunsUi ui(folders, port, true);
  StopSignal stop;
  print_address(ui);
  while (!stop.requested()) std::this_thread::sleep_for(std::chrono::milliseconds(100));
  return 0;
}

}  // namespace

void UiFlags::add(CLI::App* sub) {
  sub->add_option_function<std::string>(
         "--ui",
         [this](const std::string& given) {
           wanted = true;
           port = given == "{}" ? "" : given;  // how the parser may say nothing
         },
         "a page with the run's curves, experts and samples, on this machine (PORT: any free one)")
      ->expected(0, 1)
      ->type_name("[PORT]");
}

std::unique_ptr<RunsUi> UiFlags::start(const std::string& out) const {
  if (!wanted) return nullptr;
  int number = 0;
  if (!port.empty()) {
    bool digits = port.size() <= 5 && port.find_first_not_of("0123456789") == std::string::npos;
    number = digits ? std::stoi(port) : 65536;
    if (number > 65535)
      throw Error("--ui", "'" + port + "' is no port", "use a number up to 65535, or none");
  }
  make_folder(out);
  std::unique_ptr<RunsUi> ui;
  try {
    ui = std::make_unique<RunsUi>(std::vector<std::string>{out}, number, false);
  } catch (const Error& e) {
    throw Error("--ui", e.where() + ": " + e.fact(), "give another port, or none for a free one");
  }
  print_address(*ui);
  return ui;
}

void add_ui(CLI::App& app, Command& run) {
  CLI::App* sub =
      app.add_subcommand("ui", "a page with the curves of runs, to look at and compare");
  struct Flags {
    std::vector<std::string> folders;
    int port = 8081;
  };
  auto f = std::make_shared<Flags>();
  sub->add_option("runs", f->folders, "run folders, or folders that hold some")->required();
  sub->add_option("--port", f->port, "0: any free one")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  sub->callback([f, &run] { run = [f] { return ui_command(f->folders, f->port); }; });
}

}  // namespace wels
