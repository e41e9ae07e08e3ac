// The program's version, for checkpoints and reports.
#pragma once
namespace wels {
const char* version();      // "0.1.0"
const char* git_version();  // git describe of the built tree, "unknown" outside a checkout
}  // namespace wels
