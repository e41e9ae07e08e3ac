// Matrix-product micro-kernels: rows × vectors accumulators in registers, one pass over k.
// 6 rows × 4 vectors with 32 registers (10 loads per 24 multiply-adds), 6 × 2 with 16.

#ifdef __AVX512F__
constexpr int kPanelVecs = 4;
constexpr int kMaxRows[5] = {0, 12, 12, 8, 6};  // by vectors of the panel
#else
constexpr int kPanelVecs = 2;
constexpr int kMaxRows[3] = {0, 8, 6};
#endif
constexpr int kPanel = kPanelVecs * kLanes;

struct StepF32 {
  static inline __attribute__((always_inline)) Vec spread(const uint8_t* a) { return set1(*(const float*)a); }
  static inline __attribute__((always_inline)) Vec multiply_add(Vec a, Vec b, Vec c) { return fma(a, b, c); }
  static Vec spread_half(const uint8_t*) { return zero(); }
};
#ifdef __AVX512BF16__
typedef uint32_t __attribute__((may_alias, aligned(2))) PairBits;
typedef uint16_t __attribute__((may_alias)) HalfBits;
struct StepBf16 {
  static inline __attribute__((always_inline)) Vec spread(const uint8_t* a) {
    return (Vec)_mm512_set1_epi32((int)*(const PairBits*)a);
  }
  static inline __attribute__((always_inline)) Vec multiply_add(Vec a, Vec b, Vec c) {
    return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
  }
  static Vec spread_half(const uint8_t* a) { return (Vec)_mm512_set1_epi32(*(const HalfBits*)a); }
};
#endif

// Finishes one vector of the result: columns [0, n) of it, n <= kLanes.
inline __attribute__((always_inline)) void finish(const GemmBlock& g, Vec sum, int64_t i, int64_t j, int n) {
  if (g.row_scale) {
    Vec s = set1(g.row_scale[i * g.row_scale_stride]);
    s = mul(s, n == kLanes ? load(g.col_scale + j) : load_part(g.col_scale + j, n));
    sum = mul(sum, s);
    if (g.init) {
      const float* p = g.init + i * g.init_stride + j;
      sum = add(n == kLanes ? load(p) : load_part(p, n), sum);
    }
  }
  if (g.bias) sum = add(sum, n == kLanes ? load(g.bias + j) : load_part(g.bias + j, n));
  if (g.out == GemmOut::kF32 || g.out == GemmOut::kF32Add) {
    float* p = (float*)g.c + i * g.c_stride + j;
    if (g.out == GemmOut::kF32Add) sum = add(n == kLanes ? load(p) : load_part(p, n), sum);
    n == kLanes ? store(p, sum) : store_part(p, sum, n);
  } else {
    uint16_t* p = (uint16_t*)g.c + i * g.c_stride + j;
    if (g.out == GemmOut::kBf16Add) sum = add(n == kLanes ? load_bf16(p) : load_part_bf16(p, n), sum);
    n == kLanes ? store_bf16(p, sum) : store_part_bf16(p, sum, n);
  }
}

template <class Step, int R, int V>
void micro_kernel(const GemmBlock& g, const uint8_t* b, int64_t i0, int64_t j0) {
  Vec acc[R][V];
  int last = (int)(g.n - j0 < V * kLanes ? g.n - j0 - (V - 1) * kLanes : kLanes);  // columns of the last vector
  bool from_init = g.init && !g.row_scale;
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[r][v] = zero();
  }
  if (from_init) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        const float* p = g.init + (i0 + r) * g.init_stride + j0 + v * kLanes;
        acc[r][v] = v < V - 1 || last == kLanes ? load(p) : load_part(p, last);
      }
    }
  }
  const uint8_t* a = (const uint8_t*)g.a + i0 * g.a_row;
  const int64_t a_row = g.a_row, a_step = g.a_step;
  for (int64_t s = 0; s < g.steps; ++s) {
    Vec bv[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) bv[v] = load((const float*)(b + v * kLanes * 4));
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      Vec av = Step::spread(a + r * a_row);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[r][v] = Step::multiply_add(av, bv[v], acc[r][v]);
    }
    a += a_step;
    b += V * kLanes * 4;
  }
  if (g.half_step) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      Vec av = Step::spread_half(a + r * a_row);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        acc[r][v] = Step::multiply_add(av, load((const float*)(b + v * kLanes * 4)), acc[r][v]);
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) finish(g, acc[r][v], i0 + r, j0 + v * kLanes, v < V - 1 ? kLanes : last);
  }
}

using MicroKernel = void (*)(const GemmBlock&, const uint8_t*, int64_t, int64_t);

// All row blocks of one panel of V vectors. The panel stays in L1 while the rows of A pass by.
template <class Step, int V, int... R>
void panel_kernel(const GemmBlock& g, const uint8_t* b, int64_t j0) {
  static constexpr MicroKernel kRest[] = {nullptr, micro_kernel<Step, R, V>...};
  constexpr int kRows = kMaxRows[V];
  int64_t i = 0;
  for (; i + kRows <= g.m; i += kRows) micro_kernel<Step, kRows, V>(g, b, i, j0);
  if (i < g.m) kRest[g.m - i](g, b, i, j0);
}

template <class Step>
void gemm_block(const GemmBlock& g) {
  for (int64_t j = 0, p = 0; j < g.n; j += kPanel, ++p) {
    const uint8_t* b = (const uint8_t*)g.b + p * g.b_panel;
    int64_t left = g.n - j;
    int vecs = left >= kPanel ? kPanelVecs : (int)((left + kLanes - 1) / kLanes);
    switch (vecs) {
#ifdef __AVX512F__
      case 1: panel_kernel<Step, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11>(g, b, j); break;
      case 2: panel_kernel<Step, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11>(g, b, j); break;
      case 3: panel_kernel<Step, 3, 1, 2, 3, 4, 5, 6, 7>(g, b, j); break;
      default: panel_kernel<Step, 4, 1, 2, 3, 4, 5>(g, b, j); break;
#else
      case 1: panel_kernel<Step, 1, 1, 2, 3, 4, 5, 6, 7>(g, b, j); break;
      default: panel_kernel<Step, 2, 1, 2, 3, 4, 5>(g, b, j); break;
#endif
    }
  }
}

const GemmKernels kGemm{
    kPanel, kLanes,
#ifdef __AVX512BF16__
    true, gemm_block<StepF32>, gemm_block<StepBf16>,
#else
    false, gemm_block<StepF32>, nullptr,
#endif
};
