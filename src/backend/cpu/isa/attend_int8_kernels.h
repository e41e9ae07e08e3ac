// Scores of attention over a cache of Q8_0 in int8, where an instruction set multiplies bytes
// faster than floats: the tile kernels of attend_kernels.h take them in place of their own product.
//
// Per block of 32 columns, in f32 and in the order of the blocks: score = fma(dq · D, dk, score),
// D the whole sum of q · k, dq and dk their scales, q rounded as device.h says of matmul's x. A
// vpdpbusd lane sums four columns of an unsigned and a signed byte, so k is kept as k + 128 and the
// sums start at -128 · (sum of q).
#pragma once
#include <cstdint>

namespace wels {

// Columns (queries) in vectors of 16, vector after vector.
struct AttendInt8Queries {
  int8_t* q;       // [blocks][8][16][4] of each vector: eight steps of four columns
  float* scale;    // [blocks][16]
  int32_t* start;  // [blocks][16]: -128 · the sum of q
};

struct AttendInt8Keys {
  uint8_t* k;    // [n][blocks][32], k + 128
  float* scale;  // [n][blocks]
};

struct AttendInt8Scores {
  AttendInt8Queries q;
  AttendInt8Keys k;
  int blocks = 0;
};

// What is read next, to be asked for meanwhile: two pieces of each of some rows.
struct AttendAhead {
  const void* first = nullptr;
  int64_t row_bytes = 0;  // from row to row
  int rows = 0;
  struct Piece {
    int64_t begin = 0, bytes = 0;  // of a row; none: 0 bytes
  } pieces[2];
};

struct AttendInt8 {
  // Keys of Q8_0: a[i] of a_blocks, behind them b[i] of b_blocks (0: none).
  void (*pack)(const void* const* a, int a_blocks, const void* const* b, int b_blocks, int n,
               const AttendInt8Keys& to);
  // s [n][64] of the keys from `first` on, `lanes` columns, a multiple of 16; asks for what
  // is ahead on the way.
  void (*scores)(const AttendInt8Scores& x, int first, int n, int lanes, float* s,
                 const AttendAhead& ahead);
};

}  // namespace wels
