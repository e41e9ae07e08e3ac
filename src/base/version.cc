#include "base/version.h"

namespace wels {
const char* version() { return "0.1.0"; }
const char* git_version() {
  return
#include "git_version.inc"
      ;
}
}  // namespace wels
