// Element types. A quantised type stores `block` elements in `bytes` bytes; plain types have
// block 1.
#pragma once
#include <cstdint>
#include <string_view>

namespace wels {

enum class DType : uint8_t {
  kF64,
  kF32,
  kF16,
  kBF16,
  kF8E4M3,
  kI64,
  kI32,
  kI16,
  kI8,
  kU8,
  kBool,
  // GGUF block types (tensor/quant.h encodes and decodes them)
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL,
  kIQ4_XS,
  kMXFP4,
  kCount
};

struct DTypeInfo {
  std::string_view name;  // as messages print it: "bf16", "q4_k"
  int block;              // elements per block
  int bytes;              // bytes per block
};

inline constexpr DTypeInfo kDTypeInfo[] = {
    {"f64", 1, 8},      {"f32", 1, 4},      {"f16", 1, 2},        {"bf16", 1, 2},
    {"f8_e4m3", 1, 1},  {"i64", 1, 8},      {"i32", 1, 4},        {"i16", 1, 2},
    {"i8", 1, 1},       {"u8", 1, 1},       {"bool", 1, 1},       {"q4_0", 32, 18},
    {"q4_1", 32, 20},   {"q5_0", 32, 22},   {"q5_1", 32, 24},     {"q8_0", 32, 34},
    {"q2_k", 256, 84},  {"q3_k", 256, 110}, {"q4_k", 256, 144},   {"q5_k", 256, 176},
    {"q6_k", 256, 210}, {"iq4_nl", 32, 18}, {"iq4_xs", 256, 136}, {"mxfp4", 32, 17},
};
static_assert(sizeof(kDTypeInfo) / sizeof(kDTypeInfo[0]) == static_cast<size_t>(DType::kCount));

constexpr const DTypeInfo& info(DType t) { return kDTypeInfo[static_cast<int>(t)]; }
constexpr std::string_view name(DType t) { return info(t).name; }
constexpr bool is_quantised(DType t) { return info(t).block > 1; }
// Bytes of one row of `cols` elements; cols must be a multiple of the block.
constexpr int64_t row_bytes(DType t, int64_t cols) { return cols / info(t).block * info(t).bytes; }

// bfloat16: the upper half of a float32. Conversion rounds to nearest even; NaN stays NaN.
struct bf16 {
  uint16_t bits;
};
inline float to_float(bf16 v) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(v.bits) << 16);
}
inline bf16 to_bf16(float v) {
  uint32_t u = __builtin_bit_cast(uint32_t, v);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>(u >> 16 | 0x40)};
  return {static_cast<uint16_t>((u + 0x7fff + (u >> 16 & 1)) >> 16)};
}

// dtype_of<T>::value: the DType of a C++ element type.
template <class T>
struct dtype_of;
template <>
struct dtype_of<double> {
  static constexpr DType value = DType::kF64;
};
template <>
struct dtype_of<float> {
  static constexpr DType value = DType::kF32;
};
template <>
struct dtype_of<bf16> {
  static constexpr DType value = DType::kBF16;
};
template <>
struct dtype_of<int32_t> {
  static constexpr DType value = DType::kI32;
};
template <>
struct dtype_of<uint8_t> {
  static constexpr DType value = DType::kU8;
};

}  // namespace wels
