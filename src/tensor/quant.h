// The table of weight formats: one row per type that a GGUF tensor may have. A new format is one
// row and two functions; everything else (readers, writers, tests, kernels' fallbacks) goes through
// this table.
//
// Block layouts (little endian; f16 = IEEE half; "lo, hi" = nibbles of a byte). Values x from
// quants q:
//   Q8_0    f16 d, i8 q[32]                                             x = d q
//   Q4_0    f16 d, u8 qs[16]: lo = values 0-15, hi = 16-31              x = d (q - 8)
//   Q4_1    f16 d, f16 m, u8 qs[16]                                     x = d q + m
//   Q5_0    f16 d, u32 fifth bits, u8 qs[16]                            x = d (q - 16)
//   Q5_1    f16 d, f16 m, u32 fifth bits, u8 qs[16]                     x = d q + m
//   Q2_K    u8 (4-bit scale, 4-bit min)[16], u8 qs[64], f16 d, f16 dmin x = d s q - dmin m, per 16
//   values Q3_K    u8 high bits[32], u8 qs[64], 16 6-bit scales, f16 d         x = d (s - 32) (q -
//   4), per 16 values Q4_K    f16 d, f16 dmin, 8 6-bit (scale, min), u8 qs[128]           x = d s q
//   - dmin m, per 32 values Q5_K    as Q4_K with u8 fifth bits[32] before qs Q6_K    u8 low
//   nibbles[128], u8 high pairs[64], i8 scales[16], f16 d  x = d s (q - 32), per 16 values IQ4_NL
//   f16 d, u8 qs[16]                                            x = d table[q], a table of 16
//   uneven steps IQ4_XS  f16 d, u16 + u8[4]: 8 6-bit scales, u8 qs[128]              x = d (s - 32)
//   table[q], per 32 values MXFP4   u8 exponent e, u8 qs[16]                                    x =
//   2^(e - 127) E2M1[q]
// Source: the GGUF specification and ggml's format definitions; MXFP4: OCP Microscaling
// Formats 1.0.
#pragma once
#include <cstdint>
#include <span>

#include "tensor/dtype.h"

namespace wels {

struct QuantFormat {
  DType dtype;            // block size and bytes: info(dtype)
  uint32_t ggml_type;     // number in GGUF files
  const char* gguf_name;  // "Q4_K"
  // n values (a multiple of the block) from consecutive blocks, and back. `blocks` may be
  // unaligned.
  void (*decode)(const uint8_t* blocks, float* values, int64_t n);
  // Scales (and minima) are searched so that the sum of squared errors is small, each times the
  // importance of its column (n values, not negative; nullptr: all the same; plain types have
  // nothing to choose). Values must be finite.
  void (*encode)(const float* values, const float* importance, uint8_t* blocks, int64_t n);
};

// All rows.
std::span<const QuantFormat> quant_formats();
// The row of a type; nullptr: not in the table.
const QuantFormat* find_quant_format(DType dtype);
const QuantFormat* find_quant_format_by_ggml_type(uint32_t ggml_type);

}  // namespace wels
