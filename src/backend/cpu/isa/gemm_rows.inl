// Row-wise helpers of the products: rounding to E4M3, widening, softmax, column sums.

WELS_INLINE Vec magnitude(Vec v) { return max(v, sub(zero(), v)); }

// v / scale to the nearest E4M3 value, ties to even, saturating (float_to_fp8 of tensor/fp8.h, the
// same bits). Above 2^-6 the mantissa is cut to 3 bits; below, multiples of 2^-9 come from adding a
// number whose last bit weighs that.
WELS_INLINE Vec round_to_fp8(Vec v, Vec scale) {
  v = div(v, scale);
#ifdef __AVX512F__
  __m512i bits = _mm512_castps_si512(v),
          sign = _mm512_and_si512(bits, _mm512_set1_epi32((int)0x80000000u));
  Vec a = min(set1(448.0f), _mm512_castsi512_ps(_mm512_xor_si512(bits, sign)));
  __m512i u = _mm512_castps_si512(a),
          odd = _mm512_and_si512(_mm512_srli_epi32(u, 20), _mm512_set1_epi32(1));
  u = _mm512_and_si512(_mm512_add_epi32(_mm512_add_epi32(u, odd), _mm512_set1_epi32(0x7ffff)),
                       _mm512_set1_epi32((int)0xfff00000u));
  Vec small = sub(add(a, set1(16384.0f)), set1(16384.0f));
  Vec r = _mm512_mask_mov_ps(_mm512_castsi512_ps(u),
                             _mm512_cmp_ps_mask(a, set1(0.015625f), _CMP_NGE_UQ), small);
  return _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(r), sign));
#else
  __m256i bits = _mm256_castps_si256(v),
          sign = _mm256_and_si256(bits, _mm256_set1_epi32((int)0x80000000u));
  Vec a = min(set1(448.0f), _mm256_castsi256_ps(_mm256_xor_si256(bits, sign)));
  __m256i u = _mm256_castps_si256(a),
          odd = _mm256_and_si256(_mm256_srli_epi32(u, 20), _mm256_set1_epi32(1));
  u = _mm256_and_si256(_mm256_add_epi32(_mm256_add_epi32(u, odd), _mm256_set1_epi32(0x7ffff)),
                       _mm256_set1_epi32((int)0xfff00000u));
  Vec small = sub(add(a, set1(16384.0f)), set1(16384.0f));
  Vec r = _mm256_blendv_ps(_mm256_castsi256_ps(u), small,
                           _mm256_cmp_ps(a, set1(0.015625f), _CMP_NGE_UQ));
  return _mm256_castsi256_ps(_mm256_or_si256(_mm256_castps_si256(r), sign));
#endif
}

// V3's scale of 128 activations, and of a weight block.
WELS_INLINE Vec activation_scale(Vec amax) { return div(max(amax, set1(1e-4f)), set1(448.0f)); }

template <class Units>
void fp8_rows(const Fp8Block& q) {
  using Element = typename Units::Element;
  for (int64_t r = 0; r < q.rows; ++r) {
    const uint8_t* row = row_of(q.src, q.src_bf16, q.src_stride, r);
    Element* out = (Element*)q.dst + r * q.dst_stride;
    for (int64_t c0 = 0; c0 < q.cols; c0 += 128) {
      int64_t end = c0 + 128 < q.cols ? c0 + 128 : q.cols;
      Vec amax = zero();
      for (int64_t c = c0; c < end; c += kLanes) {
        int n = end - c < kLanes ? (int)(end - c) : kLanes;
        amax = max(magnitude(load_any(row, q.src_bf16, c, n)), amax);  // a NaN leaves amax as it is
      }
      Vec scale = activation_scale(set1(max_of(amax)));
      store_part(q.scale + r * q.scale_stride + c0 / 128, scale, 1);
      for (int64_t c = c0; c < end; c += kLanes) {
        int n = end - c < kLanes ? (int)(end - c) : kLanes;
        Units::put(out + c, round_to_fp8(load_any(row, q.src_bf16, c, n), scale), n);
      }
    }
  }
}

template <class Units>
void fp8_columns(const Fp8Block& q) {
  using Element = typename Units::Element;
  for (int64_t c = 0; c < q.cols; c += kLanes) {
    int n = q.cols - c < kLanes ? (int)(q.cols - c) : kLanes;
    Vec amax = zero();
    for (int64_t r = 0; r < q.rows; ++r) {
      amax = max(magnitude(load_any(row_of(q.src, q.src_bf16, q.src_stride, r), q.src_bf16, c, n)),
                 amax);
    }
    Vec scale = activation_scale(amax);
    F32Units::put(q.scale + c, scale, n);
    for (int64_t r = 0; r < q.rows; ++r) {
      Vec v = load_any(row_of(q.src, q.src_bf16, q.src_stride, r), q.src_bf16, c, n);
      Units::put((Element*)q.dst + r * q.dst_stride + c, round_to_fp8(v, scale), n);
    }
  }
}

void fp8_block(const Fp8Block& q) {
  Vec amax = zero();
  for (int64_t r = 0; r < q.rows; ++r) {
    for (int64_t c = 0; c < q.cols; c += kLanes) {
      int n = q.cols - c < kLanes ? (int)(q.cols - c) : kLanes;
      amax = max(magnitude(load_first((const float*)q.src + r * q.src_stride + c, n)), amax);
    }
  }
  float largest = max_of(amax);
  Vec scale = largest > 0 ? div(set1(largest), set1(448.0f)) : set1(1.0f);
  store_part(q.scale, scale, 1);
  for (int64_t r = 0; r < q.rows; ++r) {
    for (int64_t c = 0; c < q.cols; c += kLanes) {
      int n = q.cols - c < kLanes ? (int)(q.cols - c) : kLanes;
      Vec v = load_first((const float*)q.src + r * q.src_stride + c, n);
      F32Units::put((float*)q.dst + r * q.dst_stride + c, round_to_fp8(v, scale), n);
    }
  }
}

void widen(const uint16_t* bf16, float* f32, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(f32 + i, load_bf16(bf16 + i));
  if (i < n) store_part(f32 + i, load_part_bf16(bf16 + i, (int)(n - i)), (int)(n - i));
}

template <class Units>
void softmax_terms(const float* z, int64_t n, float* max_io, float* sum_io, void* terms) {
  auto* out = (typename Units::Element*)terms;
  Vec top = set1(*max_io);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) top = max(load(z + i), top);
  float largest = max_of(top);
  for (; i < n; ++i) largest = z[i] > largest ? z[i] : largest;
  const Vec shift = set1(largest), log2e = set1(1.44269504f);
  Vec s = zero();
  for (i = 0; i + kLanes <= n; i += kLanes) {
    Vec t = exp2(mul(sub(load(z + i), shift), log2e));
    s = add(s, t);
    if (out) Units::put(out + i, t, kLanes);
  }
  float total = sum(s), lanes[kLanes];
  if (i < n) {
    Vec t = exp2(mul(sub(load_part(z + i, (int)(n - i)), shift), log2e));
    if (out) Units::put(out + i, t, (int)(n - i));
    store(lanes, t);
    for (int j = 0; j < n - i; ++j) total += lanes[j];
  }
  store(lanes, exp2(mul(set1(*max_io - largest), log2e)));
  *sum_io = *sum_io * lanes[0] + total;
  *max_io = largest;
}

template <class Units>
void scale_terms(void* terms, int64_t n, float scale) {
  auto* p = (typename Units::Element*)terms;
  constexpr bool kBf16 = Units::kDepth == 2;
  for (int64_t i = 0; i < n; i += kLanes) {
    int count = n - i < kLanes ? (int)(n - i) : kLanes;
    Units::put(p + i, mul(set1(scale), load_any(p, kBf16, i, count)), count);
  }
}

template <class Units>
void logit_gradient(const float* z, int64_t n, float lse, float d, int64_t target, void* out) {
  auto* p = (typename Units::Element*)out;
  Vec shift = set1(lse), scale = set1(-d);
  for (int64_t i = 0; i < n; i += kLanes) {
    int count = n - i < kLanes ? (int)(n - i) : kLanes;
    Units::put(p + i, mul(scale, exp(sub(load_first(z + i, count), shift))), count);
  }
  if (target >= 0 && target < n) {
    Vec rest = sub(set1(1.0f), exp(set1(z[target] - lse)));
    Units::put(p + target, mul(set1(d), rest), 1);
  }
}

void column_sum(const void* src, bool src_bf16, int64_t stride, int64_t rows, int64_t cols,
                float* out, bool add_to) {
  Vec acc[kPanelVecs];
  for (int v = 0; v < kPanelVecs; ++v) acc[v] = zero();
  for (int64_t r = 0; r < rows; ++r) {
    const uint8_t* row = row_of(src, src_bf16, stride, r);
    for (int v = 0; v * kLanes < cols; ++v) {
      int n = cols - v * kLanes < kLanes ? (int)(cols - v * kLanes) : kLanes;
      acc[v] = add(acc[v], load_any(row, src_bf16, v * kLanes, n));
    }
  }
  for (int v = 0; v * kLanes < cols; ++v) {
    int n = cols - v * kLanes < kLanes ? (int)(cols - v * kLanes) : kLanes;
    if (add_to) acc[v] = add(load_first(out + v * kLanes, n), acc[v]);
    F32Units::put(out + v * kLanes, acc[v], n);
  }
}
