// The one product of attention: C (+)= A · B with f32 sums in registers. A is broadcast unit by
// unit, so its layout is free; B and C have lanes. Register tile: kTileRows × kTileVecs sums,
// enough to keep two fused multiply-adds per cycle in flight.
#ifdef __AVX512F__
constexpr int kTileRows = 8, kTileVecs = 3;
#else
constexpr int kTileRows = 4, kTileVecs = 2;
#endif

// Where unit (row i, summand u) of A lies: rows of summands (i · ld + u) or rows of rows (u · ld +
// i).
enum class Walk { kAlongRow, kAcrossRows };

// What a product does to C. kGoOn: the sums begin with what C holds, so that a product cut into
// passes over its summands has the bits of a whole one. kAdd: they are added to C at the end, which
// does not wait for C at the beginning (8 × 3 sums of 32 units: 97 % of the peak in place of 93).
enum class Into { kSet, kGoOn, kAdd };

// Not inlined: with the registers of its callers this loop's would be saved and restored for every
// tile, which costs some percent of the time (docs/log.md).
template <class E, Walk kWalk, int kRows, int kVecs>
__attribute__((noinline)) void product_tile(const float* a, long a_ld, const float* b, long b_ld,
                                            float* c, long c_ld, int units, Into into) {
  Vec sum[kRows][kVecs];
  if (into == Into::kGoOn) {
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 3
      for (int n = 0; n < kVecs; ++n) sum[i][n] = load(c + i * c_ld + n * kLanes);
    }
  } else {
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 3
      for (int n = 0; n < kVecs; ++n) sum[i][n] = zero();
    }
  }
  const float* upper = a + 4 * a_ld;  // two bases keep all eight rows within x86's addressing modes
  for (int u = 0; u < units; ++u) {
    Vec bv[kVecs];
#pragma GCC unroll 3
    for (int n = 0; n < kVecs; ++n) bv[n] = load(b + n * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const float* unit = kWalk == Walk::kAcrossRows ? a + i
                          : i < 4                    ? a + i * a_ld
                                                     : upper + (i - 4) * a_ld;
      if constexpr (kVecs < 3) {
#pragma GCC unroll 2
        for (int n = 0; n < kVecs; ++n) sum[i][n] = E::mac_unit(unit, bv[n], sum[i][n]);
      } else {
        const Vec av = set1(*unit);
#pragma GCC unroll 3
        for (int n = 0; n < kVecs; ++n) sum[i][n] = E::mac(av, bv[n], sum[i][n]);
      }
    }
    a += kWalk == Walk::kAcrossRows ? a_ld : 1;
    upper += 1;
    b += b_ld;
  }
  asm("" : "+r"(c), "+r"(c_ld));  // else the rows' addresses are kept in vector registers meanwhile
  if (into == Into::kAdd) {
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 3
      for (int n = 0; n < kVecs; ++n) {
        float* to = c + i * c_ld + n * kLanes;
        store(to, add(load(to), sum[i][n]));
      }
    }
  } else {
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 3
      for (int n = 0; n < kVecs; ++n) store(c + i * c_ld + n * kLanes, sum[i][n]);
    }
  }
}

// kRows rows of C, n lanes wide.
template <class E, Walk kWalk, int kRows>
inline void product_rows(const float* a, long a_ld, const float* b, long b_ld, float* c, long c_ld,
                         int n, int units, Into into) {
  int v = n / kLanes;
  while (v > 0) {
    if (kTileVecs == 3 && (v == 3 || v > 4)) {
      product_tile<E, kWalk, kRows, kTileVecs>(a, a_ld, b, b_ld, c, c_ld, units, into);
      v -= 3, b += 3 * kLanes, c += 3 * kLanes;
    } else if (v >= 2) {
      product_tile<E, kWalk, kRows, 2>(a, a_ld, b, b_ld, c, c_ld, units, into);
      v -= 2, b += 2 * kLanes, c += 2 * kLanes;
    } else {
      product_tile<E, kWalk, kRows, 1>(a, a_ld, b, b_ld, c, c_ld, units, into);
      v = 0;
    }
  }
}

// A number as a type.
template <int kValue>
struct Number {
  static constexpr int value = kValue;
};

// What a group of rows [i, i + rows) needs of B: lanes from n0 on, summands [u0, u1).
struct NonZero {
  int n0, u0, u1;
};

// C [m][c_ld] (+)= A · B [units][b_ld], n lanes; part(i, rows) says for each group of rows what is
// not known to be zero. Where a row lies in its group changes only which zeros are added, so never
// its bits.
template <class E, Walk kWalk, class PartOf>
inline void product(int m, int n, const float* a, long a_ld, const float* b, long b_ld, float* c,
                    long c_ld, Into into, PartOf part) {
  const long row = kWalk == Walk::kAcrossRows ? 1 : a_ld,
             unit = kWalk == Walk::kAcrossRows ? a_ld : 1;
  int i = 0;
  auto group = [&](auto rows) {
    constexpr int kRows = decltype(rows)::value;
    NonZero p = part(i, kRows);
    product_rows<E, kWalk, kRows>(a + i * row + p.u0 * unit, a_ld, b + p.u0 * b_ld + p.n0, b_ld,
                                  c + i * c_ld + p.n0, c_ld, n - p.n0,
                                  p.u1 > p.u0 ? p.u1 - p.u0 : 0, into);
    i += kRows;
  };
  while (m - i >= kTileRows) group(Number<kTileRows>());
  if (kTileRows > 4 && m - i >= 4) group(Number<4>());
  if (m - i >= 2) group(Number<2>());
  if (m - i >= 1) group(Number<1>());
}

// Summands of one pass over B: 96 units × 64 lanes are half of a 48 KB L1.
constexpr int kUnitsPerPass = 96;

template <class E>
void attend_product(const float* a, int a_ld, const float* b, int b_ld, float* c, int c_ld, int m,
                    int n, int units, bool add) {
  for (int u = 0; u < units || u == 0; u += kUnitsPerPass) {
    int end = units - u < kUnitsPerPass ? units - u : kUnitsPerPass;
    product<E, Walk::kAlongRow>(m, n, a + u, a_ld, b + (long)u * b_ld, b_ld, c, c_ld,
                                add || u > 0 ? Into::kGoOn : Into::kSet, [&](int, int) {
                                  return NonZero{0, 0, end};
                                });
  }
}
