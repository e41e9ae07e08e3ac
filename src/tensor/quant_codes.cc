#include "tensor/quant_codes.h"

#include <algorithm>
#include <cmath>

#include "tensor/float_formats.h"

namespace wels {
namespace {

float half_at(const uint8_t* p) { return half_to_float(static_cast<uint16_t>(p[0] | p[1] << 8)); }

// 32 codes: values 0-15 in the low nibbles, 16-31 in the high ones.
void nibbles(const uint8_t* qs, uint8_t* code) {
  for (int i = 0; i < 16; ++i) {
    code[i] = qs[i] & 15;
    code[i + 16] = qs[i] >> 4;
  }
}
void fifth_bits(const uint8_t* bits, uint8_t* code) {
  for (int i = 0; i < 32; ++i)
    code[i] = static_cast<uint8_t>(code[i] | (bits[i / 8] >> i % 8 & 1) << 4);
}

void q4_0(const uint8_t* in, QuantCodes& out) {
  out.scale[0] = half_at(in);
  nibbles(in + 2, out.code);
}
void q4_1(const uint8_t* in, QuantCodes& out) {
  out.scale[0] = half_at(in);
  out.min[0] = half_at(in + 2);
  nibbles(in + 4, out.code);
}
void q5_0(const uint8_t* in, QuantCodes& out) {
  out.scale[0] = half_at(in);
  nibbles(in + 6, out.code);
  fifth_bits(in + 2, out.code);
}
void q5_1(const uint8_t* in, QuantCodes& out) {
  out.scale[0] = half_at(in);
  out.min[0] = half_at(in + 2);
  nibbles(in + 8, out.code);
  fifth_bits(in + 4, out.code);
}
void q8_0(const uint8_t* in, QuantCodes& out) {
  out.scale[0] = half_at(in);
  for (int i = 0; i < 32; ++i) out.code[i] = in[2 + i] ^ 0x80;
}

// Values i, i + 32, i + 64 and i + 96 of each half share byte i of its 32.
int pair_of(const uint8_t* pairs, int i) {
  return pairs[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
}
void q2_k(const uint8_t* in, QuantCodes& out) {
  float d = half_at(in + 80), dmin = half_at(in + 82);
  for (int j = 0; j < 16; ++j) {
    out.scale[j] = d * static_cast<float>(in[j] & 15);
    out.min[j] = -(dmin * static_cast<float>(in[j] >> 4));
  }
  for (int i = 0; i < 256; ++i) out.code[i] = static_cast<uint8_t>(pair_of(in + 16, i));
}
void q3_k(const uint8_t* in, QuantCodes& out) {
  float d = half_at(in + 108);
  const uint8_t* packed = in + 96;
  for (int j = 0; j < 16; ++j) {
    int low = j < 8 ? packed[j] & 15 : packed[j - 8] >> 4;
    int high = packed[8 + j % 4] >> j / 4 * 2 & 3;
    out.scale[j] = d * static_cast<float>((low | high << 4) - 32);
  }
  for (int i = 0; i < 256; ++i) {
    out.code[i] = static_cast<uint8_t>(pair_of(in + 32, i) | (in[i % 32] >> i / 32 & 1) << 2);
  }
}

// Scales and minima of Q4_K and Q5_K: 6 bits each, eight of either in 12 bytes.
void scales_and_minima(const uint8_t* in, QuantCodes& out) {
  float d = half_at(in), dmin = half_at(in + 2);
  const uint8_t* p = in + 4;
  for (int j = 0; j < 8; ++j) {
    int s = j < 4 ? p[j] & 63 : (p[j + 4] & 15) | p[j - 4] >> 6 << 4;
    int m = j < 4 ? p[j + 4] & 63 : p[j + 4] >> 4 | p[j] >> 6 << 4;
    out.scale[j] = d * static_cast<float>(s);
    out.min[j] = -(dmin * static_cast<float>(m));
  }
}
void nibbles_of_64(const uint8_t* qs, uint8_t* code) {
  for (int i = 0; i < 256; ++i) {
    uint8_t byte = qs[i / 64 * 32 + i % 32];
    code[i] = i % 64 < 32 ? byte & 15 : byte >> 4;
  }
}
void q4_k(const uint8_t* in, QuantCodes& out) {
  scales_and_minima(in, out);
  nibbles_of_64(in + 16, out.code);
}
void q5_k(const uint8_t* in, QuantCodes& out) {
  scales_and_minima(in, out);
  nibbles_of_64(in + 48, out.code);
  for (int i = 0; i < 256; ++i)
    out.code[i] = static_cast<uint8_t>(out.code[i] | (in[16 + i % 32] >> i / 32 & 1) << 4);
}
void q6_k(const uint8_t* in, QuantCodes& out) {
  float d = half_at(in + 208);
  for (int j = 0; j < 16; ++j)
    out.scale[j] = d * static_cast<float>(static_cast<int8_t>(in[192 + j]));
  for (int i = 0; i < 256; ++i) {
    uint8_t byte = in[i / 128 * 64 + i % 64];
    out.code[i] =
        static_cast<uint8_t>((i % 128 < 64 ? byte & 15 : byte >> 4) | pair_of(in + 128, i) << 4);
  }
}

constexpr int kUnevenSteps[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                  1,    13,   25,  38,  53,  69,  89,  113};
constexpr int kTwiceE2M1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

void look_up(const int* table, int offset, uint8_t* code, int n) {
  for (int i = 0; i < n; ++i) code[i] = static_cast<uint8_t>(table[code[i]] + offset);
}
void iq4_nl(const uint8_t* in, QuantCodes& out) {
  q4_0(in, out);
  look_up(kUnevenSteps, 128, out.code, 32);
}
void iq4_xs(const uint8_t* in, QuantCodes& out) {
  float d = half_at(in);
  int high = in[2] | in[3] << 8;
  for (int j = 0; j < 8; ++j) {
    int s = (in[4 + j / 2] >> j % 2 * 4 & 15) | (high >> 2 * j & 3) << 4;
    out.scale[j] = d * static_cast<float>(s - 32);
    nibbles(in + 8 + j * 16, out.code + j * 32);
  }
  look_up(kUnevenSteps, 128, out.code, 256);
}
void mxfp4(const uint8_t* in, QuantCodes& out) {
  out.scale[0] = std::ldexp(1.0f, in[0] - 128);
  nibbles(in + 1, out.code);
  look_up(kTwiceE2M1, 12, out.code, 32);
}

constexpr QuantSplit kSplits[] = {
    {DType::kQ4_0, 32, 8, false, q4_0},       {DType::kQ4_1, 32, 0, true, q4_1},
    {DType::kQ5_0, 32, 16, false, q5_0},      {DType::kQ5_1, 32, 0, true, q5_1},
    {DType::kQ8_0, 32, 128, false, q8_0},     {DType::kQ2_K, 16, 0, true, q2_k},
    {DType::kQ3_K, 16, 4, false, q3_k},       {DType::kQ4_K, 32, 0, true, q4_k},
    {DType::kQ5_K, 32, 0, true, q5_k},        {DType::kQ6_K, 16, 32, false, q6_k},
    {DType::kIQ4_NL, 32, 128, false, iq4_nl}, {DType::kIQ4_XS, 32, 128, false, iq4_xs},
    {DType::kMXFP4, 32, 12, false, mxfp4},
};

}  // namespace

const QuantSplit* find_quant_split(DType dtype) {
  auto it = std::find_if(std::begin(kSplits), std::end(kSplits),
                         [&](const QuantSplit& s) { return s.dtype == dtype; });
  return it == std::end(kSplits) ? nullptr : it;
}

}  // namespace wels
