// --ui [PORT], of all commands that train.
#pragma once
#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "serve/runs_ui.h"

namespace wels {

struct UiFlags {
  bool wanted = false;
  std::string port;  // empty: any free one
  void add(CLI::App* sub);
  // Makes the run's folder, serves its page and says where; null where it is not wanted. Throws
  // Error: port in use.
  std::unique_ptr<RunsUi> start(const std::string& out) const;
};

}  // namespace wels
