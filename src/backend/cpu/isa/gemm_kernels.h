#pragma once
#include <cstdint>

namespace wels {

struct GemmKernels {
  int unused = 0;
};

}  // namespace wels
