// wels: the program. Bad input ends with one line on stderr and exit code 2, Ctrl-C with 130, what
// nobody foresaw with 1; a bug of ours aborts.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "apps/commands.h"
#include "apps/usage.h"
#include "base/error.h"
#include "base/signal.h"
#include "base/version.h"

namespace wels {
namespace {

// libgomp's threads spin for milliseconds while they wait, which is ruinous where other programs
// want the cores (10 to 100 times slower, docs/log.md). It reads its settings before main, so the
// program starts itself again with a short spin, unless the user has said something else.
void limit_spinning(char** argv) {
  if (std::getenv("GOMP_SPINCOUNT") || std::getenv("OMP_WAIT_POLICY")) return;
  ::setenv("GOMP_SPINCOUNT", "20000", 1);
  ::execv("/proc/self/exe", argv);  // returns only where there is no /proc: then threads spin
}

// Whether what was printed has arrived: 0, or 2 with an error line. Whoever closes a pipe has read
// enough.
int finish_output() {
  bool lost = std::fflush(stdout) != 0;
  std::string why = lost ? std::strerror(errno) : "";
  struct stat to;
  if ((!lost && !std::ferror(stdout)) || (::fstat(STDOUT_FILENO, &to) == 0 && S_ISFIFO(to.st_mode)))
    return 0;
  fmt::print(stderr, "error: stdout: cannot write the output{}; free space or write elsewhere\n",
             why.empty() ? "" : ": " + why);
  return 2;
}

}  // namespace
}  // namespace wels

int main(int argc, char** argv) {
  wels::limit_spinning(argv);
  std::signal(SIGXFSZ, SIG_IGN);  // a write beyond a limit of size fails, as on a full disk
  CLI::App app{"wels: DeepSeek's architecture, learned, run and read in one program", "wels"};
  app.set_version_flag("--version",
                       fmt::format("wels {} ({})", wels::version(), wels::git_version()));
  app.require_subcommand(1);
  app.footer(
      "A flag given twice: the last counts. Exit codes: 0 done, 2 bad input or flags (one line on "
      "stderr says what and what to do), 130 stopped by Ctrl-C (serve and ui, which go on until "
      "they are stopped: 0).");
  app.get_formatter()->column_width(34);
  wels::Command run;
  wels::add_pretrain(app, run);
  wels::add_sft(app, run);
  wels::add_rl(app, run);
  wels::add_r1(app, run);
  wels::add_adapt(app, run);
  wels::add_distill(app, run);
  wels::add_dpo(app, run);
  wels::add_merge(app, run);
  wels::add_colearn(app, run);
  wels::add_generate(app, run);
  wels::add_chat(app, run);
  wels::add_serve(app, run);
  wels::add_keys(app, run);
  wels::add_eval(app, run);
  wels::add_info(app, run);
  wels::add_export(app, run);
  wels::add_quantize(app, run);
  wels::add_report(app, run);
  wels::add_ui(app, run);
  wels::add_bench(app, run);
  wels::add_tasks(app, run);
  wels::add_help(app, run);
  wels::add_shell_help(app, run);
  wels::tighten_flags(app);
  try {
    app.parse(argc, argv);
    int code = run();
    return code == 0 ? wels::finish_output() : code;
  } catch (const CLI::Success& e) {  // --help, --version
    app.exit(e);
    return wels::finish_output();
  } catch (const CLI::ParseError& e) {
    fmt::print(stderr, "error: {}\n", wels::usage_error(app, e).what());
    return 2;
  } catch (const wels::Interrupted&) {
    return 130;
  } catch (const wels::Error& e) {
    fmt::print(stderr, "error: {}\n", e.what());
    return 2;
  } catch (const std::bad_alloc&) {
    fmt::print(stderr, "error: memory: none left; use a smaller model, batch or context\n");
    return 2;
  } catch (const std::exception& e) {
    if (std::ferror(stdout) && wels::finish_output() != 0) return 2;
    fmt::print(stderr, "error: {}\n", e.what());
    return 1;
  }
}
