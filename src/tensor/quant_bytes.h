// Little-endian fields of blocks.
#pragma once
#include <cstdint>

#include "base/check.h"
#include "tensor/float_formats.h"

namespace wels::quant {

inline uint16_t load_u16(const uint8_t* p) { return static_cast<uint16_t>(p[0] | p[1] << 8); }
inline float load_half(const uint8_t* p) { return half_to_float(load_u16(p)); }
inline void store_u16(uint8_t* p, uint16_t v) {
  p[0] = static_cast<uint8_t>(v);
  p[1] = static_cast<uint8_t>(v >> 8);
}
inline void store_half(uint8_t* p, float x) { store_u16(p, float_to_half(x)); }
inline uint32_t load_u32(const uint8_t* p) {
  return static_cast<uint32_t>(load_u16(p)) | static_cast<uint32_t>(load_u16(p + 2)) << 16;
}

// IQ4_NL's and IQ4_XS's levels: they fit the distribution of weights better than even ones.
inline constexpr int8_t kUnevenSteps[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                            1,    13,   25,  38,  53,  69,  89,  113};
// Twice the E2M1 values of MXFP4, so that they are whole; the scale is halved.
inline constexpr int8_t kTwiceE2M1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

}  // namespace wels::quant
