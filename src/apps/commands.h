// The subcommands of `wels`. Each file adds one: its flags to the parser, and what runs when it is
// chosen.
#pragma once
#include <CLI/CLI.hpp>
#include <functional>
#include <string>

namespace wels {

// A subcommand registers itself and leaves in `run` what to do (the exit code is returned).
using Command = std::function<int()>;

void add_pretrain(CLI::App& app, Command& run);
void add_sft(CLI::App& app, Command& run);
void add_rl(CLI::App& app, Command& run);
void add_r1(CLI::App& app, Command& run);
void add_adapt(CLI::App& app, Command& run);
void add_distill(CLI::App& app, Command& run);
void add_dpo(CLI::App& app, Command& run);
void add_merge(CLI::App& app, Command& run);
void add_colearn(CLI::App& app, Command& run);
void add_generate(CLI::App& app, Command& run);
void add_chat(CLI::App& app, Command& run);
void add_eval(CLI::App& app, Command& run);
void add_info(CLI::App& app, Command& run);
void add_export(CLI::App& app, Command& run);
void add_quantize(CLI::App& app, Command& run);
void add_report(CLI::App& app, Command& run);
void add_ui(CLI::App& app, Command& run);
void add_serve(CLI::App& app, Command& run);
void add_keys(CLI::App& app, Command& run);
void add_bench(CLI::App& app, Command& run);
void add_tasks(CLI::App& app, Command& run);
void add_shell_help(CLI::App& app, Command& run);  // after all others

// --device and --threads, which most subcommands share.
struct DeviceFlags {
  std::string device = "auto";
  int threads = 0;  // 0: all
  void add(CLI::App* sub);
  void apply() const;  // sets the number of threads
};

}  // namespace wels
