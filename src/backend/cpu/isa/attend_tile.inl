// Tiles of attention: scores Sᵀ = K·Qᵀ, softmax by columns, and the products that follow. Source:
// Dao et al. 2022, algorithms 1 and 4 (FlashAttention); here with keys as rows and queries as
// lanes.
//
// What a column gets does not depend on its neighbours: masked keys have probability 0 and add
// exactly 0, and key tiles start at fixed positions of the segment. So a row has the same bits in a
// whole prefill, in a chunk and alone.

constexpr float kNoScore = -1e30f;  // the largest of no scores
constexpr float kMaskedScore =
    -2e30f;  // a masked one: smaller, so that 2^(c·(masked - largest)) is 0 even then

inline int clamp_keys(float limit, int n_keys) {
  return limit < 0 ? 0 : limit > n_keys ? n_keys : (int)limit;
}

// The same product for one vector of columns and 16 keys, whose operands' loads are the limit
// there: the sums of all keys stay in registers for `units` units. Asks for `lines` of what is
// ahead every kAskUnits.
constexpr int kAskUnits = 8;
template <class E>
__attribute__((noinline)) void score_16_keys(const float* k, int k_ld, const float* q, int q_ld,
                                             int units, float* s, bool add, LinesAhead& ahead,
                                             long lines) {
  constexpr int kKeys = 16;
  const float* base[kKeys / 4];
#pragma GCC unroll 4
  for (int i = 0; i < kKeys / 4; ++i) base[i] = k + 4 * i * k_ld;
  const long row[4] = {0, k_ld, 2L * k_ld, 3L * k_ld};  // in general registers
  Vec sum[kKeys];
#pragma GCC unroll 16
  for (int i = 0; i < kKeys; ++i) sum[i] = add ? load(s + i * kAttendCols) : zero();
  for (int u = 0; u < units; u += kAskUnits) {
    ahead.ask(lines);
    const int end = units - u < kAskUnits ? units - u : kAskUnits;
    for (int v = 0; v < end; ++v, q += q_ld) {
      const Vec qv = load(q);
#pragma GCC unroll 16
      for (int i = 0; i < kKeys; ++i) sum[i] = E::mac_unit(base[i / 4] + row[i % 4], qv, sum[i]);
#pragma GCC unroll 4
      for (const float*& p : base) ++p;
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kKeys; ++i) store(s + i * kAttendCols, sum[i]);
}

// Scores of one vector of columns with n_keys / 16 groups of keys, in passes that the L1 cache
// holds.
template <class E>
inline void narrow_scores(const AttendForwardTile& t, const float* k, int n_keys, float* s) {
  constexpr int kPass = 288;
  const int groups = n_keys / 16;
  LinesAhead ahead(t.ahead);
  const long asks = groups * ((t.dk_units + kAskUnits - 1) / kAskUnits),
             lines = (ahead.count() + asks - 1) / (asks > 0 ? asks : 1);
  for (int u = 0; u < t.dk_units; u += kPass) {
    const int units = t.dk_units - u < kPass ? t.dk_units - u : kPass;
    for (int g = 0; g < groups; ++g) {
      score_16_keys<E>(k + (long)g * 16 * t.k_ld + u, t.k_ld, t.q + (long)u * t.q_ld, t.q_ld, units,
                       s + g * 16 * kAttendCols, u > 0, ahead, lines);
    }
  }
}

// sᵀ [n_keys][64]: scores; lanes that see none of a group's keys are not computed.
template <class E>
inline void tile_scores(const float* k, int k_ld, int n_keys, const float* q, int q_ld, int units,
                        const float* limit, int lanes, float* s) {
  for (int u = 0; u < units; u += kUnitsPerPass) {
    int end = units - u < kUnitsPerPass ? units - u : kUnitsPerPass;
    product<E, Walk::kAlongRow>(n_keys, lanes, k + u, k_ld, q + u * q_ld, q_ld, s, kAttendCols,
                                u > 0 ? Into::kGoOn : Into::kSet, [&](int j, int) {
                                  int n0 = 0;
                                  while (n0 < lanes - kLanes && limit[n0 + kLanes - 1] <= j)
                                    n0 += kLanes;
                                  return NonZero{n0, 0, end};
                                });
  }
}

// One tile of keys into the running softmax (m, l) of kLanes columns: p = 2^(scale·(s - m));
// returns the factor for what was summed before, 1 where m stays.
template <class E>
inline Vec softmax_lanes(float* s, float* p, const float* limit, int n_keys, float scale, float* m,
                         float* l) {
  const Vec seen = load(limit), masked = set1(kMaskedScore);
  const int all = clamp_keys(limit[0], n_keys), some = clamp_keys(limit[kLanes - 1], n_keys);
  const Vec before = load(m);
  Vec top[4] = {before, before, before, before};
  int j = 0;
  for (; j + 4 <= all; j += 4) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) top[i] = max(load(s + (j + i) * kAttendCols), top[i]);
  }
  for (; j < all; ++j) top[0] = max(load(s + j * kAttendCols), top[0]);
  for (; j < some; ++j) {
    Vec x = where_greater(seen, set1((float)j), load(s + j * kAttendCols), masked);
    store(s + j * kAttendCols, x);
    top[0] = max(x, top[0]);
  }
  const Vec now = max(max(top[0], top[1]), max(top[2], top[3]));
  const Vec c = set1(scale), shift = mul(now, set1(-scale));
  Vec even = zero(), odd = zero();
  constexpr int kStep = 2 * kAttendCols / E::kPair;  // floats of p per pair of keys
  for (j = 0; j + 2 <= some; j += 2) {
    Vec a = exp2_fast<E::kShortExp>(fma(load(s + j * kAttendCols), c, shift));
    Vec b = exp2_fast<E::kShortExp>(fma(load(s + (j + 1) * kAttendCols), c, shift));
    even = add(even, a);
    odd = add(odd, b);
    E::store_pair(p + j / 2 * kStep, a, b);
  }
  if (j < some) {
    Vec a = exp2_fast<E::kShortExp>(fma(load(s + j * kAttendCols), c, shift));
    even = add(even, a);
    E::store_pair(p + j / 2 * kStep, a, zero());
    j += 2;
  }
  for (; j < n_keys; j += 2) E::store_pair(p + j / 2 * kStep, zero(), zero());
  const Vec factor =
      all_equal(now, before) ? set1(1.0f) : exp2_fast<E::kShortExp>(mul(sub(before, now), c));
  store(m, now);
  store(l, fma(load(l), factor, add(even, odd)));
  return factor;
}

// Row i of o times factor[i], where that is not 1.
inline void scale_rows(float* o, int dv_pad, int begin, int end, const float* factor) {
  for (int i = begin; i < end; ++i) {
    if (factor[i] == 1.0f) continue;
    Vec f = set1(factor[i]);
    for (int c = 0; c < dv_pad; c += kLanes)
      store(o + i * dv_pad + c, mul(load(o + i * dv_pad + c), f));
  }
}

// s of the keys [key, key + n).
template <class E>
inline void forward_scores(const AttendForwardTile& t, int key, int n, const float* limit,
                           int lanes) {
  if (t.int8) return t.int8->scores(*t.eight, key, n, (lanes + 15) / 16 * 16, t.s, t.ahead);
  const float* k = t.k + (long)key * t.k_ld;
  int done = 0;
  if constexpr (kLanes == 16) {
    if (lanes == kLanes) {
      narrow_scores<E>(t, k, n, t.s);
      done = n / 16 * 16;
    }
  }
  tile_scores<E>(k + (long)done * t.k_ld, t.k_ld, n - done, t.q, t.q_ld, t.dk_units, limit, lanes,
                 t.s + done * kAttendCols);
}

// o (+)= p · v of the keys [key, key + n). Not inlined, as forward_tile's constants would take its
// registers.
template <class E>
__attribute__((noinline)) void add_values(const AttendForwardTile& t, int key, int n,
                                          const float* limit, int lanes) {
  // One vector of columns takes what the registers hold of each value at a time, so that these come
  // from the L2 cache once; and pairs that only this tile reads do not leave the L1 cache.
  const int step = t.v_pairs || lanes == kLanes ? kValueCols : t.dv_pad;
  for (int c = 0; c < t.dv_pad; c += step) {
    const int width = t.dv_pad - c < step ? t.dv_pad - c : step;
    const float* v = t.v + (long)(key / E::kPair) * t.v_ld + c;
    int v_ld = t.v_ld;
    if (t.v_pairs) {
      attend_pairs<E>(t.v + (long)key * t.v_ld + c / E::kPair, t.v_ld, n, width, t.v_pairs);
      v = t.v_pairs;
      v_ld = width;
    }
    product<E, Walk::kAcrossRows>(t.cols, width, t.p, kAttendCols, v, v_ld, t.o + c, t.dv_pad,
                                  t.more || key > 0 ? Into::kAdd : Into::kSet,
                                  [&](int i, int rows) {
                                    int seen = clamp_keys(limit[i + rows - 1], n);
                                    return NonZero{0, 0, (seen + E::kPair - 1) / E::kPair};
                                  });
  }
}

template <class E>
void forward_tile(const AttendForwardTile& t) {
  const int lanes = (t.cols + kLanes - 1) / kLanes * kLanes;
  for (int c = 0; !t.more && c < lanes; c += kLanes) {
    store(t.m + c, set1(kNoScore));
    store(t.l + c, zero());
  }
  const int last = clamp_keys(t.limit[t.cols - 1], t.n_keys);
  float limit[kAttendCols], factor[kAttendCols];
  for (int key = 0; key < last || key == 0; key += kAttendKeys) {
    const int n = t.n_keys - key < kAttendKeys ? t.n_keys - key : kAttendKeys;
    for (int c = 0; c < lanes; c += kLanes)
      store(limit + c, sub(load(t.limit + c), set1((float)key)));
    forward_scores<E>(t, key, n, limit, lanes);
    bool rescale = false;
    for (int c = 0; c < lanes; c += kLanes) {
      Vec f = softmax_lanes<E>(t.s + c, t.p + c, limit + c, n, t.scale, t.m + c, t.l + c);
      store(factor + c, f);
      rescale |= !all_equal(f, set1(1.0f));
    }
    if (rescale && (t.more || key > 0)) scale_rows(t.o, t.dv_pad, 0, t.cols, factor);
    add_values<E>(t, key, n, limit, lanes);
  }
}

template <class E>
void attend_merge(float* m, float* l, float* o, const float* cm, const float* cl, const float* co,
                  int c0, int cols, int dv_pad, float scale) {
  float old_factor[kAttendCols], new_factor[kAttendCols];
  const Vec c = set1(scale);
  for (int i = c0 / kLanes * kLanes; i < cols; i += kLanes) {
    Vec a = load(m + i), b = load(cm + i), top = max(a, b);
    Vec fa = exp2_fast<E::kShortExp>(mul(sub(a, top), c)),
        fb = exp2_fast<E::kShortExp>(mul(sub(b, top), c));
    store(old_factor + i, fa);
    store(new_factor + i, fb);
    store(m + i, top);
    store(l + i, fma(load(l + i), fa, mul(load(cl + i), fb)));
  }
  for (int i = c0; i < cols; ++i) {
    Vec fa = set1(old_factor[i]), fb = set1(new_factor[i]);
    float* x = o + (long)i * dv_pad;
    const float* y = co + (long)i * dv_pad;
    for (int d = 0; d < dv_pad; d += kLanes)
      store(x + d, fma(load(x + d), fa, mul(load(y + d), fb)));
  }
}

// P and dS = P∘(dP - delta) of kLanes columns, from s and dp, in the layouts that the products
// read.
template <class E>
inline void gradient_lanes(const AttendBackwardTile& t, int c, const float* s, const float* dp,
                           float* p_rows, float* ds_rows, float* ds_pairs) {
  const Vec seen = load(t.limit + c), scale = set1(t.scale), shift = sub(zero(), load(t.lse2 + c));
  const Vec delta = load(t.delta + c);
  const int all = clamp_keys(t.limit[c], t.n_keys),
            some = clamp_keys(t.limit[c + kLanes - 1], t.n_keys);
  constexpr int kStep = 2 * kAttendCols / E::kPair;  // floats per pair of keys, in both layouts
  const int at = c / E::kPair;
  int j = 0;
  auto pair = [&](auto masked) {
    Vec p[2] = {zero(), zero()}, ds[2] = {zero(), zero()};
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      if (masked.value && j + i >= some) break;
      Vec x = exp2_fast<E::kShortExp>(fma(load(s + (j + i) * kAttendCols + c), scale, shift));
      Vec y = mul(x, sub(load(dp + (j + i) * kAttendCols + c), delta));
      if (masked.value) {
        x = where_greater(seen, set1((float)(j + i)), x, zero());
        y = where_greater(seen, set1((float)(j + i)), y, zero());
      }
      p[i] = x;
      ds[i] = y;
    }
    E::store_pair(ds_pairs + j / 2 * kStep + c, ds[0], ds[1]);
    if constexpr (E::kPair == 1) {
      E::store_pair(p_rows + j / 2 * kStep + c, p[0], p[1]);
    } else {
      E::store_rows(p_rows + j / 2 * kStep + at, p[0], p[1]);
      E::store_rows(ds_rows + j / 2 * kStep + at, ds[0], ds[1]);
    }
  };
  for (; j + 2 <= all; j += 2) pair(Number<0>());
  for (; j < t.n_keys; j += 2) pair(Number<1>());
}

template <class E>
void backward_tile(const AttendBackwardTile& t) {
  constexpr int kTile = kAttendCols * kAttendKeys;
  float *s = t.scratch, *dp = s + kTile, *p_rows = dp + kTile, *ds_rows = p_rows + kTile;
  float* ds_pairs = E::kPair == 1 ? ds_rows : ds_rows + kTile;
  const int lanes = (t.cols + kLanes - 1) / kLanes * kLanes,
            col_units = (t.cols + E::kPair - 1) / E::kPair;
  tile_scores<E>(t.k, t.k_ld, t.n_keys, t.q, kAttendCols, t.dk_units, t.limit, lanes, s);
  tile_scores<E>(t.v, t.v_ld, t.n_keys, t.dy, kAttendCols, t.dv_units, t.limit, lanes, dp);
  for (int c = 0; c < lanes; c += kLanes) gradient_lanes<E>(t, c, s, dp, p_rows, ds_rows, ds_pairs);

  // Keys as rows: the columns before the first that sees key j have no part in it.
  auto seeing = [&](int j, int) {
    int c = 0;
    while (c < t.cols && t.limit[c] <= j) ++c;
    return NonZero{0, c / E::kPair, col_units};
  };
  constexpr int kRowUnits = kAttendCols / E::kPair;
  const Into of_keys = t.first_cols ? Into::kSet : Into::kAdd;
  product<E, Walk::kAlongRow>(t.n_keys, t.dv_pad, p_rows, kRowUnits, t.dy_pairs, t.dv_pad, t.dv,
                              t.dv_pad, of_keys, seeing);
  product<E, Walk::kAlongRow>(t.n_keys, t.dk_pad, ds_rows, kRowUnits, t.q_pairs, t.dk_pad, t.dk,
                              t.dk_pad, of_keys, seeing);
  product<E, Walk::kAcrossRows>(t.cols, t.dk_pad, ds_pairs, kAttendCols, t.k_pairs, t.dk_pad, t.dq,
                                t.dk_pad, t.first_keys ? Into::kSet : Into::kAdd,
                                [&](int i, int rows) {
                                  int seen = clamp_keys(t.limit[i + rows - 1], t.n_keys);
                                  return NonZero{0, 0, (seen + E::kPair - 1) / E::kPair};
                                });
}
