// A word is 4 codes (or parts of them) of one row: what a step of the kernels has per lane. The
// file's nibbles lie in such words already; bits and pairs are transposed, all four columns at
// once.
#include "backend/cpu/quant_pack.h"

#include <cstring>
#include <utility>

namespace wels {
namespace {

uint32_t word(const uint8_t* p, int i = 0) {
  uint32_t w;
  std::memcpy(&w, p + 4 * i, 4);
  return w;
}

// Row `r` of a run of tiles: where its words and scales go.
struct Place {
  uint8_t* codes;   // of the first tile
  uint8_t* scales;  // of the first tile's block
  int r;
  void put(int64_t at, uint32_t w) const { std::memcpy(codes + at + 4 * r, &w, 4); }
  void put_half(int at, const uint8_t* h) const { std::memcpy(scales + at + 2 * r, h, 2); }
  void put_byte(int at, int b) const { scales[at + r] = static_cast<uint8_t>(b); }
};

constexpr uint32_t kLow = 0x0f0f0f0f;

// The nibbles of a tile from 16 bytes whose low halves are columns 0-15, as the kernels want them.
void put_nibbles(const Place& p, const uint8_t* qs) {
  for (int j = 0; j < 4; ++j) p.put(64 * j, word(qs, j));
}
// Two tiles from 32 bytes, one in the low nibbles and one in the high ones.
void put_nibbles_of_two(const Place& p, const uint8_t* qs, int64_t low_tile, int64_t high_tile) {
  for (int j = 0; j < 4; ++j) {
    uint32_t a = word(qs, j), b = word(qs, j + 4);
    p.put(low_tile + 64 * j, (a & kLow) | (b & kLow) << 4);
    p.put(high_tile + 64 * j, (a >> 4 & kLow) | (b & ~kLow));
  }
}

// Bit 4s + b of x to bit plane_bit(s) of byte b.
uint32_t plane_of(uint32_t x) {
  uint32_t t = ((x >> 14) ^ x) & 0x0000cccc;
  x ^= t ^ t << 14;
  t = ((x >> 7) ^ x) & 0x00aa00aa;
  return x ^ t ^ t << 7;
}

// From 32 bytes whose bit t belongs to tile t: the plane of each of the 8 tiles.
void put_planes(const Place& p, const uint8_t* bits, int64_t at, int64_t tile_bytes) {
  uint32_t a[8];
  for (int s = 0; s < 8; ++s) a[plane_bit(s)] = word(bits, s);
  auto swap = [&](int i, int k, uint32_t mask) {
    uint32_t t = ((a[i] >> k) ^ a[i + k]) & mask;
    a[i + k] ^= t;
    a[i] ^= t << k;
  };
  for (int i = 0; i < 4; ++i) swap(i, 4, kLow);
  for (int i : {0, 1, 4, 5}) swap(i, 2, 0x33333333);
  for (int i : {0, 2, 4, 6}) swap(i, 1, 0x55555555);
  for (int t = 0; t < 8; ++t) p.put(at + t * tile_bytes, a[t]);
}

// From 32 bytes whose bits 2t, 2t + 1 belong to tile t: the pairs of each of the 4 tiles.
void put_pairs(const Place& p, const uint8_t* pairs, int64_t at, int64_t tile_bytes) {
  for (int v = 0; v < 2; ++v) {
    uint32_t a[4];
    for (int i = 0; i < 4; ++i) a[i] = word(pairs, 4 * v + i);
    auto swap = [&](int i, int k, uint32_t mask) {
      uint32_t t = ((a[i] >> 2 * k) ^ a[i + k]) & mask;
      a[i + k] ^= t;
      a[i] ^= t << 2 * k;
    };
    swap(0, 2, kLow);
    swap(1, 2, kLow);
    swap(0, 1, 0x33333333);
    swap(2, 1, 0x33333333);
    for (int t = 0; t < 4; ++t) p.put(at + t * tile_bytes + 64 * v, a[t]);
  }
}

// --- one block of one row each ---

void q4_0(const uint8_t* in, const Place& p) {  // also IQ4_NL
  p.put_half(0, in);
  put_nibbles(p, in + 2);
}
void q4_1(const uint8_t* in, const Place& p) {
  p.put_half(0, in);
  p.put_half(32, in + 2);
  put_nibbles(p, in + 4);
}
void q5_0(const uint8_t* in, const Place& p) {
  p.put_half(0, in);
  p.put(256, plane_of(word(in + 2)));
  put_nibbles(p, in + 6);
}
void q5_1(const uint8_t* in, const Place& p) {
  p.put_half(0, in);
  p.put_half(32, in + 2);
  p.put(256, plane_of(word(in + 4)));
  put_nibbles(p, in + 8);
}
void q8_0(const uint8_t* in, const Place& p) {
  p.put_half(0, in);
  for (int s = 0; s < 8; ++s) p.put(64 * s, word(in + 2, s) ^ 0x80808080);
}
void q2_k(const uint8_t* in, const Place& p) {
  p.put_half(0, in + 80);
  p.put_half(32, in + 82);
  for (int j = 0; j < 16; ++j) p.put_byte(64 + 16 * j, in[j]);
  for (int half = 0; half < 2; ++half)
    put_pairs(p, in + 16 + 32 * half, half * 4 * kQuantPanels[5].codes, kQuantPanels[5].codes);
}
void q3_k(const uint8_t* in, const Place& p) {
  constexpr int64_t kTile = kQuantPanels[6].codes;
  p.put_half(0, in + 108);
  const uint8_t* packed = in + 96;
  for (int j = 0; j < 16; ++j) {
    int low = j < 8 ? packed[j] & 15 : packed[j - 8] >> 4;
    p.put_byte(32 + 16 * j, (low | (packed[8 + j % 4] >> j / 4 * 2 & 3) << 4) - 32);
  }
  for (int half = 0; half < 2; ++half) put_pairs(p, in + 32 + 32 * half, half * 4 * kTile, kTile);
  put_planes(p, in, 128, kTile);
}
// d, dmin and 6-bit pairs, as Q4_K and Q5_K have them.
void put_scales_and_minima(const uint8_t* in, const Place& p) {
  p.put_half(0, in);
  p.put_half(32, in + 2);
  const uint8_t* q = in + 4;
  for (int j = 0; j < 4; ++j) {
    p.put_byte(64 + 32 * j, q[j] & 63);
    p.put_byte(64 + 32 * j + 16, q[j + 4] & 63);
    p.put_byte(64 + 32 * (j + 4), (q[j + 8] & 15) | q[j] >> 6 << 4);
    p.put_byte(64 + 32 * (j + 4) + 16, q[j + 8] >> 4 | q[j + 4] >> 6 << 4);
  }
}
void q4_k(const uint8_t* in, const Place& p) {
  constexpr int64_t kTile = kQuantPanels[7].codes;
  put_scales_and_minima(in, p);
  for (int j = 0; j < 4; ++j)
    put_nibbles_of_two(p, in + 16 + 32 * j, 2 * j * kTile, (2 * j + 1) * kTile);
}
void q5_k(const uint8_t* in, const Place& p) {
  constexpr int64_t kTile = kQuantPanels[8].codes;
  put_scales_and_minima(in, p);
  for (int j = 0; j < 4; ++j)
    put_nibbles_of_two(p, in + 48 + 32 * j, 2 * j * kTile, (2 * j + 1) * kTile);
  put_planes(p, in + 16, 256, kTile);
}
void q6_k(const uint8_t* in, const Place& p) {
  constexpr int64_t kTile = kQuantPanels[9].codes;
  p.put_half(0, in + 208);
  for (int j = 0; j < 16; ++j) p.put_byte(32 + 16 * j, in[192 + j]);
  for (int half = 0; half < 2; ++half) {
    for (int j = 0; j < 2; ++j) {
      int64_t tile = 4 * half + j;
      put_nibbles_of_two(p, in + 64 * half + 32 * j, tile * kTile, (tile + 2) * kTile);
    }
    put_pairs(p, in + 128 + 32 * half, half * 4 * kTile + 256, kTile);
  }
}
void iq4_xs(const uint8_t* in, const Place& p) {
  p.put_half(0, in);
  int high = in[2] | in[3] << 8;
  for (int j = 0; j < 8; ++j) {
    int s = (in[4 + j / 2] >> j % 2 * 4 & 15) | (high >> 2 * j & 3) << 4;
    p.put_byte(32 + 16 * j, s - 32);
    put_nibbles({p.codes + j * kQuantPanels[11].codes, p.scales, p.r}, in + 8 + 16 * j);
  }
}
void mxfp4(const uint8_t* in, const Place& p) {
  p.put_byte(0, in[0]);
  put_nibbles(p, in + 1);
}

// Block by block, all rows of one: every line of the panel is written while it is in the cache.
template <int kType, void (*kBlock)(const uint8_t*, const Place&)>
void pack(const Tensor& rows, uint8_t* panel) {
  constexpr const QuantPanel& kPanel = kQuantPanels[kType];
  const int64_t bytes = info(rows.dtype).bytes, stride = rows.row_raw(1) - rows.row_raw(0);
  const uint8_t* in = rows.row_raw(0);
  uint8_t* scales = panel + kPanel.scales_at(rows.cols);
  for (int64_t b = 0; b < rows.cols / info(rows.dtype).block; ++b) {
    for (int r = 0; r < static_cast<int>(rows.rows); ++r)
      kBlock(in + r * stride + b * bytes,
             {panel + b * kPanel.tiles * kPanel.codes, scales + b * kPanel.scales, r});
  }
}

using Pack = void (*)(const Tensor&, uint8_t*);
template <void (*... kBlock)(const uint8_t*, const Place&), int... kType>
constexpr auto table(std::integer_sequence<int, kType...>) {
  static_assert(sizeof...(kBlock) == kQuantTypes);
  struct Table {
    Pack pack[kQuantTypes];
  };
  return Table{{pack<kType, kBlock>...}};
}
constexpr auto kPacks =
    table<q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, q3_k, q4_k, q5_k, q6_k, q4_0, iq4_xs, mxfp4>(
        std::make_integer_sequence<int, kQuantTypes>());

}  // namespace

void pack_quant_panel(const Tensor& rows, uint8_t* panel) {
  CHECK(rows.rows <= kQuantLanes);
  if (rows.rows < kQuantLanes)
    std::memset(panel, 0, static_cast<size_t>(quant_panel(rows.dtype).bytes(rows.cols)));
  kPacks.pack[quant_type(rows.dtype)](rows, panel);
}

}  // namespace wels
