#pragma once
#include <cstdint>

namespace wels {

struct AttendKernels {
  int unused = 0;
};

}  // namespace wels
