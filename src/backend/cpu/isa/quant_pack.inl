// Panels of quantised weights from blocks (quant_kernels.h).
//
// A word is 4 codes (or parts of them) of one row: what a step of the kernels has per lane. The 16
// rows of a panel are worked on side by side: words are brought from 16 blocks into one vector, 4 x
// 4 at a time, and what is bit by bit in a word is done for all of them. The file's nibbles lie in
// such words already; bits and pairs are transposed, four columns at once.
typedef uint32_t Lanes __attribute__((vector_size(64)));  // a word per row

WELS_INLINE void join(const __m128i* quarters, Lanes& out) {
#ifdef __AVX512F__
  __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(quarters[0]), quarters[1], 1);
  __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(quarters[2]), quarters[3], 1);
  out = (Lanes)_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
#else
  __builtin_memcpy(&out, quarters, 64);
#endif
}

// A block of each row, and where a panel wants its words and scales.
struct Block {
  const uint8_t* row[kQuantLanes];
  uint8_t* codes;
  uint8_t* scales;

  WELS_INLINE void word(int at, Lanes& out) const {
    for (int r = 0; r < kQuantLanes; ++r) {
      uint32_t w;
      __builtin_memcpy(&w, row[r] + at, 4);
      out[r] = w;
    }
  }
  // Four words in a row.
  WELS_INLINE void words(int at, Lanes* out) const {
    __m128i part[4][4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      __m128i a[4];
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) a[r] = _mm_loadu_si128((const __m128i*)(row[4 * i + r] + at));
      __m128i low01 = _mm_unpacklo_epi32(a[0], a[1]), low23 = _mm_unpacklo_epi32(a[2], a[3]);
      __m128i high01 = _mm_unpackhi_epi32(a[0], a[1]), high23 = _mm_unpackhi_epi32(a[2], a[3]);
      part[0][i] = _mm_unpacklo_epi64(low01, low23);
      part[1][i] = _mm_unpackhi_epi64(low01, low23);
      part[2][i] = _mm_unpacklo_epi64(high01, high23);
      part[3][i] = _mm_unpackhi_epi64(high01, high23);
    }
#pragma GCC unroll 4
    for (int w = 0; w < 4; ++w) join(part[w], out[w]);
  }
  // A whole line of the cache, past it: nothing reads a panel before all are packed, and a line
  // that is stored through the cache is read from memory first.
  WELS_INLINE void put(int64_t at, const Lanes& w) const {
#ifdef __AVX512F__
    _mm512_stream_si512((__m512i*)(codes + at), (__m512i)w);
#else
    __m256i half[2];
    __builtin_memcpy(half, &w, 64);
    _mm256_stream_si256((__m256i*)(codes + at), half[0]);
    _mm256_stream_si256((__m256i*)(codes + at + 32), half[1]);
#endif
  }
  // The low 16 or 8 bits.
  WELS_INLINE void put_halves(int at, const Lanes& w) const {
    typedef uint16_t Halves __attribute__((vector_size(32)));
    Halves h = __builtin_convertvector(w, Halves);
    __builtin_memcpy(scales + at, &h, 32);
  }
  WELS_INLINE void put_bytes(int at, const Lanes& w) const {
    typedef uint8_t Bytes __attribute__((vector_size(16)));
    Bytes b = __builtin_convertvector(w, Bytes);
    __builtin_memcpy(scales + at, &b, 16);
  }
  // The four bytes of each word, `step` bytes apart.
  WELS_INLINE void put_each_byte(int at, int step, const Lanes& w) const {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) put_bytes(at + i * step, w >> 8 * i);
  }
};

constexpr uint32_t kLow = 0x0f0f0f0f, kPairs = 0x33333333, kBits = 0x55555555;

// The nibbles of a tile from 16 bytes whose low halves are columns 0-15, as the kernels want them.
WELS_INLINE void put_nibbles(const Block& b, int at, int64_t tile) {
  Lanes w[4];
  b.words(at, w);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) b.put(tile + 64 * j, w[j]);
}
// Two tiles from 32 bytes, one in the low nibbles and one in the high ones.
WELS_INLINE void put_nibbles_of_two(const Block& b, int at, int64_t low, int64_t high) {
  Lanes x[4], y[4];
  b.words(at, x);
  b.words(at + 16, y);
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    b.put(low + 64 * j, (x[j] & kLow) | (y[j] & kLow) << 4);
    b.put(high + 64 * j, (x[j] >> 4 & kLow) | (y[j] & ~kLow));
  }
}

// Bit 4s + c of x to bit plane_bit(s) of byte c.
WELS_INLINE void put_plane(const Block& b, int at, int64_t to) {
  Lanes x;
  b.word(at, x);
  Lanes t = ((x >> 14) ^ x) & 0x0000cccc;
  x ^= t ^ t << 14;
  t = ((x >> 7) ^ x) & 0x00aa00aa;
  b.put(to, x ^ t ^ t << 7);
}

// Exchanges the bits of `low` that `mask` does not keep with those of `high` that it does.
WELS_INLINE void exchange(Lanes& low, Lanes& high, int shift, uint32_t mask) {
  Lanes t = ((low >> shift) ^ high) & mask;
  high ^= t;
  low ^= t << shift;
}

// From 32 bytes whose bit t belongs to tile t: the plane of each of the 8 tiles.
WELS_INLINE void put_planes(const Block& b, int at, int64_t to, int64_t tile_bytes) {
  Lanes in[8], a[8];
  b.words(at, in);
  b.words(at + 16, in + 4);
#pragma GCC unroll 8
  for (int s = 0; s < 8; ++s) a[plane_bit(s)] = in[s];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) exchange(a[i], a[i + 4], 4, kLow);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) exchange(a[i / 2 * 4 + i % 2], a[i / 2 * 4 + i % 2 + 2], 2, kPairs);
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) exchange(a[i], a[i + 1], 1, kBits);
#pragma GCC unroll 8
  for (int t = 0; t < 8; ++t) b.put(to + t * tile_bytes, a[t]);
}

// From 32 bytes whose bits 2t, 2t + 1 belong to tile t: the pairs of each of the 4 tiles.
WELS_INLINE void put_pairs(const Block& b, int at, int64_t to, int64_t tile_bytes) {
#pragma GCC unroll 2
  for (int v = 0; v < 2; ++v) {
    Lanes a[4];
    b.words(at + 16 * v, a);
    exchange(a[0], a[2], 4, kLow);
    exchange(a[1], a[3], 4, kLow);
    exchange(a[0], a[1], 2, kPairs);
    exchange(a[2], a[3], 2, kPairs);
#pragma GCC unroll 4
    for (int t = 0; t < 4; ++t) b.put(to + t * tile_bytes + 64 * v, a[t]);
  }
}

WELS_INLINE void put_half(const Block& b, int at) {
  Lanes w;
  b.word(at, w);
  b.put_halves(0, w);
}
WELS_INLINE void put_two_halves(const Block& b, int at) {
  Lanes w;
  b.word(at, w);
  b.put_halves(0, w);
  b.put_halves(32, w >> 16);
}

// --- one block of 16 rows each; layouts: tensor/quant.h ---

template <int kType>
static constexpr int64_t kTile = kQuantPanels[kType].codes;

void q4_0(const Block& b) {  // also IQ4_NL
  put_half(b, 0);
  put_nibbles(b, 2, 0);
}
void q4_1(const Block& b) {
  put_two_halves(b, 0);
  put_nibbles(b, 4, 0);
}
void q5_0(const Block& b) {
  put_half(b, 0);
  put_plane(b, 2, 256);
  put_nibbles(b, 6, 0);
}
void q5_1(const Block& b) {
  put_two_halves(b, 0);
  put_plane(b, 4, 256);
  put_nibbles(b, 8, 0);
}
void q8_0(const Block& b) {
  put_half(b, 0);
  for (int half = 0; half < 2; ++half) {
    Lanes w[4];
    b.words(2 + 16 * half, w);
    for (int s = 0; s < 4; ++s) b.put(256 * half + 64 * s, w[s] ^ 0x80808080);
  }
}
void q2_k(const Block& b) {
  put_two_halves(b, 80);
  Lanes scales[4];
  b.words(0, scales);
  for (int j = 0; j < 4; ++j) b.put_each_byte(64 + 64 * j, 16, scales[j]);
  for (int half = 0; half < 2; ++half) put_pairs(b, 16 + 32 * half, half * 4 * kTile<5>, kTile<5>);
}
// Six bits less 32, in bytes.
WELS_INLINE void put_signed(const Block& b, int at, const Lanes& w) {
  Lanes six = w ^ 0x20202020, sign = six & 0x20202020;
  b.put_each_byte(at, 16, six | sign << 1 | sign << 2);
}
void q3_k(const Block& b) {
  Lanes w, low[2], high;
  b.word(106, w);
  b.put_halves(0, w >> 16);
  b.word(96, low[0]);
  b.word(100, low[1]);
  b.word(104, high);
  for (int j = 0; j < 4; ++j)
    put_signed(b, 32 + 64 * j,
               (low[j % 2] >> j / 2 * 4 & kLow) | (high >> 2 * j & 0x03030303) << 4);
  for (int half = 0; half < 2; ++half) put_pairs(b, 32 + 32 * half, half * 4 * kTile<6>, kTile<6>);
  put_planes(b, 0, 128, kTile<6>);
}
// d, dmin and 6-bit pairs, as Q4_K and Q5_K have them.
WELS_INLINE void put_scales_and_minima(const Block& b) {
  Lanes w[4];
  b.words(0, w);
  b.put_halves(0, w[0]);
  b.put_halves(32, w[0] >> 16);
  constexpr uint32_t kSix = 0x3f3f3f3f, kTop = 0x30303030;
  b.put_each_byte(64, 32, w[1] & kSix);
  b.put_each_byte(64 + 16, 32, w[2] & kSix);
  b.put_each_byte(64 + 128, 32, (w[3] & kLow) | (w[1] >> 2 & kTop));
  b.put_each_byte(64 + 128 + 16, 32, (w[3] >> 4 & kLow) | (w[2] >> 2 & kTop));
}
void q4_k(const Block& b) {
  put_scales_and_minima(b);
  for (int j = 0; j < 4; ++j)
    put_nibbles_of_two(b, 16 + 32 * j, 2 * j * kTile<7>, (2 * j + 1) * kTile<7>);
}
void q5_k(const Block& b) {
  put_scales_and_minima(b);
  for (int j = 0; j < 4; ++j)
    put_nibbles_of_two(b, 48 + 32 * j, 2 * j * kTile<8>, (2 * j + 1) * kTile<8>);
  put_planes(b, 16, 256, kTile<8>);
}
void q6_k(const Block& b) {
  Lanes w, scales[4];
  b.word(206, w);
  b.put_halves(0, w >> 16);
  b.words(192, scales);
  for (int j = 0; j < 4; ++j) b.put_each_byte(32 + 64 * j, 16, scales[j]);
  for (int half = 0; half < 2; ++half) {
    int64_t tile = half * 4 * kTile<9>;
    for (int j = 0; j < 2; ++j)
      put_nibbles_of_two(b, 64 * half + 32 * j, tile + j * kTile<9>, tile + (j + 2) * kTile<9>);
    put_pairs(b, 128 + 32 * half, tile + 256, kTile<9>);
  }
}
void iq4_xs(const Block& b) {
  Lanes w[4];
  b.words(0, w);
  b.put_halves(0, w[0]);
  for (int j = 0; j < 8; ++j) {
    Lanes six = (w[1] >> 4 * j & 15) | (w[0] >> (16 + 2 * j) & 3) << 4;
    b.put_bytes(32 + 16 * j, six - 32);
    put_nibbles(b, 8 + 16 * j, j * kTile<11>);
  }
}
void mxfp4(const Block& b) {
  Lanes w;
  b.word(0, w);
  b.put_bytes(0, w);
  put_nibbles(b, 1, 0);
}

template <int kType, void (*kBlock)(const Block&)>
void pack_panel(const QuantPackRows& rows) {
  constexpr QuantPanel kPanel = kQuantPanels[kType];
  Block b;
  for (int r = 0; r < kQuantLanes; ++r)  // lanes past the end are nobody's: any row will do
    b.row[r] = rows.src + (r < rows.rows ? r : rows.rows - 1) * rows.stride;
  uint8_t* group = rows.panel;
  for (int64_t t = 0; t < rows.k / 32; t += kQuantGroup, group += quant_group_bytes(kPanel)) {
    int64_t tiles = quant_group_tiles(rows.k, t);
    b.scales = group;
    b.codes = group + quant_scale_bytes(kPanel, tiles);
    for (int64_t i = 0; i < tiles; i += kPanel.tiles) {
      kBlock(b);
      for (const uint8_t*& row : b.row) row += rows.block_bytes;
      b.codes += kPanel.tiles * kPanel.codes;
      b.scales += kPanel.scales;
    }
  }
  _mm_sfence();  // the codes are in memory before anybody is told of them
}
