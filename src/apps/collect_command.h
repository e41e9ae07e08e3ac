// A model's answers to tasks, the right and readable ones kept (distill/answers.h), as a job.
#pragma once
#include <CLI/CLI.hpp>
#include <functional>
#include <string>

#include "apps/commands.h"
#include "distill/answers.h"

namespace wels {

struct CollectFlags {
  DeviceFlags device;
  CollectSettings settings;
  std::string task;
  double temperature = 1;
  int64_t max_tokens = 256;
  bool no_think = false;
  void add(CLI::App* sub);
};

// Asks the model (a model or run folder, or GGUF file) and writes into `out`; the same call goes on
// where one was stopped. about: names the model, with everything that changes its answers. Throws
// Error as collect_answers does, and where nothing was kept.
CollectReport collect_job(const CollectFlags& f, const std::string& model, const std::string& about,
                          const std::string& out);

}  // namespace wels
