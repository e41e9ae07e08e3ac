// The tile kernels of attention, as attend.cc and attend_backward.cc call them.
//
// Words. A *column* is one query: pair (row of q, head of the group that shares a kv head), in the
// order row · group + head, so that a tile of kAttendCols neighbouring columns sees an ever growing
// number of keys. Scores are kept as Sᵀ: one row per key, one lane per column, so that maxima, sums
// and the softmax's scalars are plain vector operations without any shuffle. A *unit* is 4 bytes of
// an operand: two bf16 that one vdpbf16ps lane multiplies (`pair` = 2), or one float (`pair` = 1).
// Operands come in three layouts, all in units, zero-padded:
//   rows        [n][ld]                 as in memory, d rounded up to 16 elements
//   transposed  [ld units of d][lanes]  lane = row: the B operand of a product that sums over d
//   pairs       [n / pair][d]           lane = element of d: the B operand of a product over rows
#pragma once
#include <cstdint>

#include "backend/cpu/isa/attend_int8_kernels.h"

namespace wels {

constexpr int kAttendCols = 64;  // queries of a tile
constexpr int kAttendKeys = 64;  // keys of a tile, aligned to the segment's first key
constexpr int kValueCols = 48;   // columns of the values that are made pairs at a time

// One tile of columns against n_keys <= a whole chunk of keys: plain online softmax, starting from
// nothing or going on (`more`) behind a multiple of kAttendKeys.
struct AttendForwardTile {
  const float* q;      // transposed [dk_units][q_ld]
  const float* k;      // rows [n_keys][k_ld]
  const float* v;      // pairs [n_keys / pair][v_ld]; where there is v_pairs, rows [n_keys][v_ld]
  float* v_pairs;      // scratch [64 / pair][kValueCols], or null
  const float* limit;  // [64] of these keys, how many a column sees, ascending
  int dk_units, q_ld, k_ld, v_ld, dv_pad, cols, n_keys;
  bool more;  // m, l and o hold the keys before
  AttendAhead ahead;
  const AttendInt8* int8;  // null: scores are of q and k; else of these, and q and k are null
  const AttendInt8Scores* eight;
  float scale;  // of the scores, times log2(e)
  float* s;     // scratch [64][64]
  float* p;     // scratch [64][64]
  float* m;     // out [64] largest score (not scaled), -1e30: none
  float* l;     // out [64] sum of 2^(scale·(score - m))
  float* o;     // out [cols][dv_pad] sum of the same · value
};

// One tile of columns against one tile of keys, backward.
struct AttendBackwardTile {
  const float *q, *q_pairs;    // transposed [dk_units][64], pairs [64 / pair][dk_pad]
  const float *dy, *dy_pairs;  // transposed [dv_units][64], pairs [64 / pair][dv_pad]
  const float *k, *k_pairs,
      *v;              // rows [n_keys][k_ld], pairs [n_keys / pair][dk_pad], rows [n_keys][v_ld]
  const float* limit;  // [64] keys of the tile that a column sees, ascending
  const float* lse2;   // [64] log2 of the softmax's denominator; 1e30 past cols
  const float* delta;  // [64] <dy, y>
  int dk_units, dv_units, k_ld, v_ld, dk_pad, dv_pad, cols, n_keys;
  float scale;     // of the scores, times log2(e)
  float* scratch;  // [5][64][64]
  float *dq, *dk,
      *dv;  // [cols][dk_pad], [n_keys][dk_pad], [n_keys][dv_pad]; dq and dk without `scale`
  bool first_keys, first_cols;  // dq, or dk and dv, hold nothing yet
};

struct AttendTable {
  int pair;  // elements of a unit
  // n rows, each a[i] (da wide) followed by b[i] (db wide, b may be null) -> rows layout. [type of
  // the rows: 0 f32, 1 bf16, 2 Q8_0, where a and b begin with a block each]
  void (*rows[3])(const void* const* a, int da, const void* const* b, int db, int n, float* dst,
                  int ld);
  void (*transpose)(const float* rows, int ld, int n, int units, float* dst, int dst_ld);
  void (*pairs)(const float* rows, int ld, int n, int d_pad, float* dst);
  // d[i] = <a row i, b row i> of rows layouts.
  void (*row_dots)(const float* a, const float* b, int ld, int n, float* dots);
  // dst[i] = src row i (d floats) · factor[i · factor_step], in the activation dtype.
  void (*store_rows)(const float* src, int ld, int n, int d, const float* factor, int factor_step,
                     void* const* dst);
  void (*forward_tile)(const AttendForwardTile& t);
  void (*backward_tile)(const AttendBackwardTile& t);
  // (m, l, o) of the columns [c0, cols) of a further chunk into the sum of the chunks before it.
  void (*merge)(float* m, float* l, float* o, const float* cm, const float* cl, const float* co,
                int c0, int cols, int dv_pad, float scale);
  // c [m][c_ld] (+)= A (rows [m][a_ld]) · B ([units][b_ld] lanes), n a multiple of 16.
  void (*product)(const float* a, int a_ld, const float* b, int b_ld, float* c, int c_ld, int m,
                  int n, int units, bool add);
};

struct AttendKernels {
  AttendTable f32, bf16;  // by activation dtype
};

}  // namespace wels
