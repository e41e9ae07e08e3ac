#include "tensor/quant.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/check.h"
#include "tensor/quant_bytes.h"
#include "tensor/quant_encode.h"

namespace wels {
namespace {

using quant::kTwiceE2M1;
using quant::kUnevenSteps;
using quant::load_half;
using quant::load_u16;
using quant::load_u32;
using quant::store_half;

// Runs a function of one block over n values.
template <int kBlock, int kBytes, void (*kOne)(const uint8_t*, float*)>
void decode_blocks(const uint8_t* in, float* out, int64_t n) {
  CHECK(n % kBlock == 0);
  for (int64_t i = 0; i < n / kBlock; ++i) kOne(in + i * kBytes, out + i * kBlock);
}
// The same for encoders. Without importance every square counts the same; with it a little of the
// mean is added, so that columns which no input reached still get a value near their own.
template <int kBlock, int kBytes, void (*kOne)(const float*, const float*, uint8_t*)>
void encode_blocks(const float* in, const float* importance, uint8_t* out, int64_t n) {
  CHECK(n % kBlock == 0);
  float w[kBlock];
  std::fill_n(w, kBlock, 1.0f);
  for (int64_t i = 0; i < n / kBlock; ++i) {
    if (importance) {
      const float* from = importance + i * kBlock;
      float mean = std::accumulate(from, from + kBlock, 0.0f) / kBlock;
      for (int l = 0; l < kBlock; ++l) w[l] = mean > 0 ? from[l] + 1e-3f * mean : 1;
    }
    kOne(in + i * kBlock, w, out + i * kBytes);
  }
}

// Plain types.

void f32_decode(const uint8_t* in, float* out, int64_t n) {
  std::memcpy(out, in, static_cast<size_t>(n) * 4);
}
void f32_encode(const float* in, const float*, uint8_t* out, int64_t n) {
  std::memcpy(out, in, static_cast<size_t>(n) * 4);
}
void f16_decode(const uint8_t* in, float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = load_half(in + 2 * i);
}
void f16_encode(const float* in, const float*, uint8_t* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) store_half(out + 2 * i, in[i]);
}
void bf16_decode(const uint8_t* in, float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = to_float(bf16{load_u16(in + 2 * i)});
}
void bf16_encode(const float* in, const float*, uint8_t* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    uint16_t bits = to_bf16(in[i]).bits;
    out[2 * i] = static_cast<uint8_t>(bits);
    out[2 * i + 1] = static_cast<uint8_t>(bits >> 8);
  }
}

// Blocks of 32 values.

void q8_0_decode(const uint8_t* in, float* out) {
  float d = load_half(in);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(static_cast<int8_t>(in[2 + i]));
}
// The bits of 5-bit formats: low four in nibbles, the fifth in a word, bit i of value i.
void unpack_32(const uint8_t* nibbles, uint32_t fifth, int* q) {
  for (int i = 0; i < 16; ++i) {
    q[i] = (nibbles[i] & 15) | static_cast<int>(fifth >> i & 1) << 4;
    q[i + 16] = nibbles[i] >> 4 | static_cast<int>(fifth >> (i + 16) & 1) << 4;
  }
}
// x = d (q - offset)
void symmetric_decode(float d, int offset, const uint8_t* nibbles, uint32_t fifth, float* out) {
  int q[32];
  unpack_32(nibbles, fifth, q);
  for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(q[i] - offset) * d;
}
// x = d q + m
void affine_decode(float d, float m, const uint8_t* nibbles, uint32_t fifth, float* out) {
  int q[32];
  unpack_32(nibbles, fifth, q);
  for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(q[i]) * d + m;
}
void q4_0_decode(const uint8_t* in, float* out) {
  symmetric_decode(load_half(in), 8, in + 2, 0, out);
}
void q5_0_decode(const uint8_t* in, float* out) {
  symmetric_decode(load_half(in), 16, in + 6, load_u32(in + 2), out);
}
void q4_1_decode(const uint8_t* in, float* out) {
  affine_decode(load_half(in), load_half(in + 2), in + 4, 0, out);
}
void q5_1_decode(const uint8_t* in, float* out) {
  affine_decode(load_half(in), load_half(in + 2), in + 8, load_u32(in + 4), out);
}

void iq4_nl_decode(const uint8_t* in, float* out) {
  float d = load_half(in);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(kUnevenSteps[in[2 + i] & 15]);
    out[i + 16] = d * static_cast<float>(kUnevenSteps[in[2 + i] >> 4]);
  }
}

void mxfp4_decode(const uint8_t* in, float* out) {
  float scale = std::ldexp(1.0f, in[0] - 128);
  for (int i = 0; i < 16; ++i) {
    out[i] = scale * static_cast<float>(kTwiceE2M1[in[1 + i] & 15]);
    out[i + 16] = scale * static_cast<float>(kTwiceE2M1[in[1 + i] >> 4]);
  }
}

// Blocks of 256 values.

void q2_k_decode(const uint8_t* in, float* out) {
  const uint8_t *scales = in, *qs = in + 16;
  float d = load_half(in + 80), dmin = load_half(in + 82);
  for (int i = 0; i < 256; ++i) {
    // Byte i of each half's 32 holds bits of values i, i + 32, i + 64, i + 96, lowest first.
    int half = i / 128, plane = i % 128 / 32, q = qs[half * 32 + i % 32] >> 2 * plane & 3;
    uint8_t s = scales[i / 16];
    out[i] =
        d * static_cast<float>(s & 15) * static_cast<float>(q) - dmin * static_cast<float>(s >> 4);
  }
}

void q3_k_decode(const uint8_t* in, float* out) {
  const uint8_t *high = in, *qs = in + 32, *packed = in + 96;
  float d = load_half(in + 108);
  float scale[16];
  for (int j = 0; j < 16; ++j) {
    int low = j < 8 ? packed[j] & 15 : packed[j - 8] >> 4;
    int top = packed[8 + j % 4] >> 2 * (j / 4) & 3;
    scale[j] = d * static_cast<float>((low | top << 4) - 32);
  }
  for (int i = 0; i < 256; ++i) {
    int half = i / 128, plane = i % 128 / 32, q = qs[half * 32 + i % 32] >> 2 * plane & 3;
    int bit = high[i % 32] >> (half * 4 + plane) & 1;
    out[i] = scale[i / 16] * static_cast<float>(q - (bit ? 0 : 4));
  }
}

// The eight 6-bit (scale, min) pairs of Q4_K and Q5_K in 12 bytes.
void unpack_scale_min(const uint8_t* p, int j, int& scale, int& min) {
  if (j < 4) {
    scale = p[j] & 63;
    min = p[j + 4] & 63;
  } else {
    scale = (p[j + 4] & 15) | (p[j - 4] >> 6) << 4;
    min = p[j + 4] >> 4 | (p[j] >> 6) << 4;
  }
}

// `fifth` nullptr: Q4_K.
void q45_k_decode(const uint8_t* in, const uint8_t* fifth, const uint8_t* qs, float* out) {
  float d = load_half(in), dmin = load_half(in + 2);
  for (int j = 0; j < 8; ++j) {
    int scale, min;
    unpack_scale_min(in + 4, j, scale, min);
    float s = d * static_cast<float>(scale), m = dmin * static_cast<float>(min);
    for (int l = 0; l < 32; ++l) {
      uint8_t byte = qs[j / 2 * 32 + l];
      int q = j % 2 == 0 ? byte & 15 : byte >> 4;
      if (fifth) q |= (fifth[l] >> j & 1) << 4;
      out[j * 32 + l] = s * static_cast<float>(q) - m;
    }
  }
}
void q4_k_decode(const uint8_t* in, float* out) { q45_k_decode(in, nullptr, in + 16, out); }
void q5_k_decode(const uint8_t* in, float* out) { q45_k_decode(in, in + 16, in + 48, out); }

void q6_k_decode(const uint8_t* in, float* out) {
  const uint8_t *low = in, *high = in + 128, *scales = in + 192;
  float d = load_half(in + 208);
  for (int i = 0; i < 256; ++i) {
    int half = i / 128, plane = i % 128 / 32, l = i % 32;
    uint8_t byte = low[half * 64 + plane % 2 * 32 + l];
    int q = (plane < 2 ? byte & 15 : byte >> 4) | (high[half * 32 + l] >> 2 * plane & 3) << 4;
    out[i] =
        d * static_cast<float>(static_cast<int8_t>(scales[i / 16])) * static_cast<float>(q - 32);
  }
}

void iq4_xs_decode(const uint8_t* in, float* out) {
  float d = load_half(in);
  uint16_t high = load_u16(in + 2);
  for (int j = 0; j < 8; ++j) {
    int scale = (in[4 + j / 2] >> 4 * (j % 2) & 15) | (high >> 2 * j & 3) << 4;
    float s = d * static_cast<float>(scale - 32);
    const uint8_t* qs = in + 8 + j * 16;
    for (int l = 0; l < 16; ++l) {
      out[j * 32 + l] = s * static_cast<float>(kUnevenSteps[qs[l] & 15]);
      out[j * 32 + l + 16] = s * static_cast<float>(kUnevenSteps[qs[l] >> 4]);
    }
  }
}

constexpr QuantFormat kFormats[] = {
    {DType::kF32, 0, "F32", f32_decode, f32_encode},
    {DType::kF16, 1, "F16", f16_decode, f16_encode},
    {DType::kQ4_0, 2, "Q4_0", decode_blocks<32, 18, q4_0_decode>,
     encode_blocks<32, 18, quant::q4_0_encode>},
    {DType::kQ4_1, 3, "Q4_1", decode_blocks<32, 20, q4_1_decode>,
     encode_blocks<32, 20, quant::q4_1_encode>},
    {DType::kQ5_0, 6, "Q5_0", decode_blocks<32, 22, q5_0_decode>,
     encode_blocks<32, 22, quant::q5_0_encode>},
    {DType::kQ5_1, 7, "Q5_1", decode_blocks<32, 24, q5_1_decode>,
     encode_blocks<32, 24, quant::q5_1_encode>},
    {DType::kQ8_0, 8, "Q8_0", decode_blocks<32, 34, q8_0_decode>,
     encode_blocks<32, 34, quant::q8_0_encode>},
    {DType::kQ2_K, 10, "Q2_K", decode_blocks<256, 84, q2_k_decode>,
     encode_blocks<256, 84, quant::q2_k_encode>},
    {DType::kQ3_K, 11, "Q3_K", decode_blocks<256, 110, q3_k_decode>,
     encode_blocks<256, 110, quant::q3_k_encode>},
    {DType::kQ4_K, 12, "Q4_K", decode_blocks<256, 144, q4_k_decode>,
     encode_blocks<256, 144, quant::q4_k_encode>},
    {DType::kQ5_K, 13, "Q5_K", decode_blocks<256, 176, q5_k_decode>,
     encode_blocks<256, 176, quant::q5_k_encode>},
    {DType::kQ6_K, 14, "Q6_K", decode_blocks<256, 210, q6_k_decode>,
     encode_blocks<256, 210, quant::q6_k_encode>},
    {DType::kIQ4_NL, 20, "IQ4_NL", decode_blocks<32, 18, iq4_nl_decode>,
     encode_blocks<32, 18, quant::iq4_nl_encode>},
    {DType::kIQ4_XS, 23, "IQ4_XS", decode_blocks<256, 136, iq4_xs_decode>,
     encode_blocks<256, 136, quant::iq4_xs_encode>},
    {DType::kBF16, 30, "BF16", bf16_decode, bf16_encode},
    {DType::kMXFP4, 39, "MXFP4", decode_blocks<32, 17, mxfp4_decode>,
     encode_blocks<32, 17, quant::mxfp4_encode>},
};

}  // namespace

std::span<const QuantFormat> quant_formats() { return kFormats; }

const QuantFormat* find_quant_format(DType dtype) {
  for (const QuantFormat& f : kFormats) {
    if (f.dtype == dtype) return &f;
  }
  return nullptr;
}

const QuantFormat* find_quant_format_by_ggml_type(uint32_t ggml_type) {
  for (const QuantFormat& f : kFormats) {
    if (f.ggml_type == ggml_type) return &f;
  }
  return nullptr;
}

}  // namespace wels
