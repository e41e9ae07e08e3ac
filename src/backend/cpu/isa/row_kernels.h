#pragma once
#include <cstdint>

namespace wels {

struct RowKernels {
  int unused = 0;
};

}  // namespace wels
