// Random weights of every block type: all bits of the codes and small scales occur.
#pragma once
#include <cmath>
#include <cstring>

#include "base/rng.h"
#include "tensor/float_formats.h"
#include "tensor/tensor.h"

namespace wels {

// Bytes of the block's halves (-1: none), and what d times the codes is about.
struct QuantFill {
  DType dtype;
  int d, dmin;
  double typical;
};
inline constexpr QuantFill kQuantFills[] = {
    {DType::kQ4_0, 0, -1, 5},      {DType::kQ4_1, 0, 2, 9},     {DType::kQ5_0, 0, -1, 10},
    {DType::kQ5_1, 0, 2, 18},      {DType::kQ8_0, 0, -1, 75},   {DType::kQ2_K, 80, 82, 12},
    {DType::kQ3_K, 108, -1, 40},   {DType::kQ4_K, 0, 2, 300},   {DType::kQ5_K, 0, 2, 600},
    {DType::kQ6_K, 208, -1, 1500}, {DType::kIQ4_NL, 0, -1, 70}, {DType::kIQ4_XS, 0, -1, 1300},
    {DType::kMXFP4, -1, -1, 3},
};

// Sets a contiguous tensor of a block type to random blocks whose values are about `size`.
inline void fill_random_blocks(const Tensor& t, Rng& rng, double size) {
  const QuantFill* fill = kQuantFills;
  while (fill->dtype != t.dtype) ++fill;
  auto* p = static_cast<uint8_t*>(t.data);
  for (int64_t i = 0; i < t.bytes(); ++i) p[i] = static_cast<uint8_t>(rng.below(256));
  for (; p < static_cast<uint8_t*>(t.data) + t.bytes(); p += info(t.dtype).bytes) {
    double d = size * (0.5 + rng.uniform()) / fill->typical;
    for (int at : {fill->d, fill->dmin}) {
      uint16_t half = float_to_half(static_cast<float>(rng.below(2) ? d : -d));
      if (at >= 0) std::memcpy(p + at, &half, 2);
    }
    if (t.dtype == DType::kMXFP4)
      p[0] = static_cast<uint8_t>(127 + std::ilogb(size) + static_cast<int>(rng.below(3)) - 3);
  }
}

}  // namespace wels
