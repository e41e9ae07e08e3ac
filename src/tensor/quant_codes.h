// GGUF blocks taken apart into what products compute with: whole codes, and a scale (and a minimum)
// per group of them. Every type is
//
//   value = scale · (code - offset) + min      code unsigned, of at most 8 bits
//
// and f32 holds scale and min exactly: they are an IEEE half, or one times a whole number of at
// most 8 bits. IQ4 steps and doubled E2M1 values are shifted to be unsigned codes.
#pragma once
#include <cstdint>

#include "tensor/dtype.h"

namespace wels {

struct QuantCodes {
  uint8_t code[256];           // info(dtype).block of them
  float scale[16], min[16]{};  // one per group
};

struct QuantSplit {
  DType dtype;
  int group;     // values under one scale: 16 or 32
  int offset;    // 0 where the type has minima
  bool has_min;  // else min is 0
  void (*split)(const uint8_t* block, QuantCodes& out);
};

// nullptr: not a block type.
const QuantSplit* find_quant_split(DType dtype);

}  // namespace wels
