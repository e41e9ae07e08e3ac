// What products with quantised weights need from an instruction set (device.h says what they are).
//
// The weight lies in panels of 16 output rows (lane = row), a panel in groups of 8 tiles (the last
// one may have fewer): a group is the scales of its tiles, then their codes, so that a panel is
// read from front to back, and a group is little more than a page. A tile is 32 columns: 8 steps of
// 4 columns, a step of whole codes being 64 bytes [row][column]. Codes are kept in parts, in their
// own width (vectors of 64 bytes):
//
//   nibbles  4 vectors   vector j: step j in the low nibbles, step j + 4 in the high ones
//   pairs    2 vectors   vector j: steps 4j .. 4j+3 in bits 0-1, 2-3, 4-5, 6-7
//   bits     1 vector    step s in bit plane_bit(s)
//   bytes    8 vectors
//
// Scales, per tile: half d[16], or d[16] m[16]; MXFP4: its exponents [16]. K types and IQ4_XS, per
// 8 tiles: half d[16] (, dmin[16]), then per tile and group (of 32 or 16 columns) bytes [16]: Q4_K,
// Q5_K scale then min; Q2_K both in one byte; Q3_K, Q6_K, IQ4_XS signed.
//
// So a panel has the file's bytes, and at most 6 % more where the file keeps scales of 6 bits or
// those of a group are no whole lines.
#pragma once
#include <cstdint>

namespace wels {

inline constexpr int kQuantTypes = 13;  // numbered from DType::kQ4_0
inline constexpr int kQuantLanes = 16;
inline constexpr int kQuantSumLanes = 2 * kQuantLanes;

struct QuantPanel {
  int codes;     // bytes of a tile
  int scales;    // bytes for `tiles` tiles
  int tiles;     // 1 or 8
  int group;     // columns under one scale: 16 or 32
  int offset;    // value = scale · (code - offset) + min
  bool has_min;  // then offset is 0
};

// Internal linkage, as all that ISA files see.
constexpr QuantPanel kQuantPanels[kQuantTypes] = {
    {256, 32, 1, 32, 8, false},             // Q4_0
    {256, 64, 1, 32, 0, true},              // Q4_1
    {320, 32, 1, 32, 16, false},            // Q5_0
    {320, 64, 1, 32, 0, true},              // Q5_1
    {512, 32, 1, 32, 128, false},           // Q8_0
    {128, 64 + 8 * 32, 8, 16, 0, true},     // Q2_K
    {192, 32 + 8 * 32, 8, 16, 4, false},    // Q3_K
    {256, 64 + 8 * 32, 8, 32, 0, true},     // Q4_K
    {320, 64 + 8 * 32, 8, 32, 0, true},     // Q5_K
    {384, 32 + 8 * 32, 8, 16, 32, false},   // Q6_K
    {256, 32, 1, 32, 128, false},           // IQ4_NL
    {256, 32 + 8 * 16, 8, 32, 128, false},  // IQ4_XS
    {256, 16, 1, 32, 12, false},            // MXFP4
};

// Groups of a panel of k columns: tiles of the one that begins with tile t, bytes of its scales and
// of all (whole lines of the cache), and a panel's.
inline constexpr int kQuantGroup = 8;
static constexpr int64_t quant_group_tiles(int64_t k, int64_t t) {
  return k / 32 - t < kQuantGroup ? k / 32 - t : kQuantGroup;
}
static constexpr int64_t quant_scale_bytes(const QuantPanel& p, int64_t tiles = kQuantGroup) {
  return (tiles / p.tiles * p.scales + 63) / 64 * 64;
}
static constexpr int64_t quant_group_bytes(const QuantPanel& p, int64_t tiles = kQuantGroup) {
  return quant_scale_bytes(p, tiles) + tiles * p.codes;
}
static constexpr int64_t quant_panel_bytes(const QuantPanel& p, int64_t k) {
  return k / 32 / kQuantGroup * quant_group_bytes(p) + quant_group_bytes(p, k / 32 % kQuantGroup);
}

// Bits of 32 codes come out of the file's words in this order by two swaps (quant_pack.inl).
static constexpr int plane_bit(int step) {
  return (step & 1) << 2 | step >> 2 << 1 | (step >> 1 & 1);
}

// Rows of x rounded to int8, one record per 32 columns. Where the weight has minima, sum is the
// sum of q per group; else a whole number, -offset times that sum, which the integer sums start
// from.
struct QuantRecord {
  int8_t q[32];
  float scale;
  union {
    float sum[2];
    int32_t start[2];
  };
  int32_t unused;
};
static_assert(sizeof(QuantRecord) == 48);

struct QuantRows {
  const void* x;
  bool bf16;         // else f32
  int64_t x_stride;  // elements
  int64_t rows, cols;
  QuantRecord* out;
  int64_t out_stride;  // bytes, a multiple of 16
  int type;            // of the weight
};

// c [m, n] = x · wᵀ + bias for columns from the first of a panel.
struct QuantBlock {
  const QuantRecord* x;
  int64_t x_stride;  // bytes
  const uint8_t* w;
  int64_t w_panel;  // bytes from panel to panel
  int64_t k, m, n;
  const float* bias;  // [n] or null
  void* c;
  bool c_bf16;
  int64_t c_stride;  // elements
  float* sums;       // work space of kQuantSumLanes · m, used for many rows
};

// Up to 16 rows of blocks as a file has them -> a panel: blocks taken apart, codes put side by side
// in their own width. Nothing is decoded or rounded.
struct QuantPackRows {
  const uint8_t* src;
  int64_t stride;  // bytes from row to row
  int rows;        // 1 to kQuantLanes
  int64_t k;       // columns
  int block_bytes;
  uint8_t* panel;  // quant_panel_bytes(..), at a multiple of 64; lanes past the last row: anything
};

struct QuantKernels {
  void (*pack[kQuantTypes])(const QuantPackRows& rows);
  void (*round_rows)(const QuantRows& r);
  void (*multiply[kQuantTypes])(const QuantBlock& g);
  // Multiply-adds · 2 of int8 done by `rounds` rounds of independent register operations.
  double (*peak)(int64_t rounds);
};

}  // namespace wels
