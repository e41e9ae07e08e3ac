// Block types as the int8 kernels number them (isa/quant_kernels.h).
#pragma once
#include <cstdint>

#include "backend/cpu/isa/quant_kernels.h"
#include "tensor/tensor.h"

namespace wels {

// The kernels' number of a block type.
inline int quant_type(DType dtype) {
  int type = static_cast<int>(dtype) - static_cast<int>(DType::kQ4_0);
  CHECK(type >= 0 && type < kQuantTypes);
  return type;
}
inline const QuantPanel& quant_panel(DType dtype) { return kQuantPanels[quant_type(dtype)]; }

}  // namespace wels
