// Quantised weights in the layout of the int8 kernels (isa/quant_kernels.h): blocks taken apart,
// codes put side by side for 16 rows in their own width. Nothing is decoded or rounded.
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

// rows: up to 16 rows of a weight, of a block type · panel: quant_panel_bytes(..) bytes, set, what
// is past the last row's lane to anything.
void pack_quant_panel(const Tensor& rows, uint8_t* panel);

}  // namespace wels
