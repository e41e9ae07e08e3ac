// Matrix-product micro-kernels: rows × vectors of accumulators in registers, one pass over k.
// 6 rows × 4 vectors with 32 registers (10 loads per 24 multiply-adds), 6 × 2 with 16.
namespace gemm {

#ifdef __AVX512F__
constexpr int kPanelVecs = 4;
constexpr int kMaxRows[5] = {0, 12, 12, 8, 6};  // by vectors of the panel
#else
constexpr int kPanelVecs = 2;
constexpr int kMaxRows[3] = {0, 8, 6};
#endif
constexpr int kPanel = kPanelVecs * kLanes;
#define WELS_INLINE inline __attribute__((always_inline))

struct StepF32 {
  static WELS_INLINE Vec spread(const uint8_t* a) { return set1(*(const float*)a); }
  static WELS_INLINE Vec multiply_add(Vec a, Vec b, Vec c) { return fma(a, b, c); }
  static WELS_INLINE Vec spread_half(const uint8_t*) { return zero(); }
};
#ifdef __AVX512BF16__
typedef uint32_t __attribute__((may_alias, aligned(2))) PairBits;
typedef uint16_t __attribute__((may_alias)) HalfBits;
struct StepBf16 {
  static WELS_INLINE Vec spread(const uint8_t* a) {
    return (Vec)_mm512_set1_epi32((int)*(const PairBits*)a);
  }
  static WELS_INLINE Vec multiply_add(Vec a, Vec b, Vec c) {
    return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
  }
  static WELS_INLINE Vec spread_half(const uint8_t* a) {
    return (Vec)_mm512_set1_epi32(*(const HalfBits*)a);
  }
};
#endif

WELS_INLINE Vec load_first(const float* p, int n) {
  return n == kLanes ? load(p) : load_part(p, n);
}
WELS_INLINE Vec load_first_bf16(const uint16_t* p, int n) {
  return n == kLanes ? load_bf16(p) : load_part_bf16(p, n);
}

// The results of a micro-kernel that are more than stored: scales, bias, sums with what is in c,
// cut columns. tile: rows × vecs vectors; the last vector has `last` columns.
__attribute__((noinline)) void finish(const GemmBlock& g, const float* tile, int rows, int vecs,
                                      int64_t i0, int64_t j0, int last) {
  for (int64_t i = i0; i < i0 + rows; ++i) {
    for (int v = 0; v < vecs; ++v, tile += kLanes) {
      int64_t j = j0 + v * kLanes;
      int n = v < vecs - 1 ? kLanes : last;
      Vec sum = load(tile);
      if (g.row_scale) {
        sum = mul(sum,
                  mul(set1(g.row_scale[i * g.row_scale_stride]), load_first(g.col_scale + j, n)));
        if (g.init) sum = add(load_first(g.init + i * g.init_stride + j, n), sum);
      }
      if (g.bias) sum = add(sum, load_first(g.bias + j, n));
      if (g.out == GemmOut::kF32 || g.out == GemmOut::kF32Add) {
        float* p = (float*)g.c + i * g.c_stride + j;
        if (g.out == GemmOut::kF32Add) sum = add(load_first(p, n), sum);
        n == kLanes ? store(p, sum) : store_part(p, sum, n);
      } else {
        uint16_t* p = (uint16_t*)g.c + i * g.c_stride + j;
        if (g.out == GemmOut::kBf16Add) sum = add(load_first_bf16(p, n), sum);
        n == kLanes ? store_bf16(p, sum) : store_part_bf16(p, sum, n);
      }
    }
  }
}

// A gradient that is added to was last touched a micro-batch ago: its lines come while the sums are
// made. Experts' dw at 512 rows each: + 4 % (Xeon, 2026-11-24).
template <int R, int V>
WELS_INLINE void prefetch_gradient(const GemmBlock& g, int64_t i0, int64_t j0) {
  if (g.out != GemmOut::kF32Add) return;
  const float* c = (const float*)g.c + i0 * g.c_stride + j0;
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r, c += g.c_stride) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) __builtin_prefetch(c + v * kLanes);
  }
}

// What a micro-kernel asks for in a step, as the hardware's own reading ahead stops at every page
// of 4 KB. The fewer rows there are, the more of the time is waiting for panels; but where memory
// is the limit, reading from front to back is faster without (one row on one thread of Zen 4: 93 %
// of what a plain read reaches in place of 85).
enum class Ahead {
  kNone,   // the first pass over a panel of few rows
  kLines,  // more: several lines of the next panel, to L2
  kLine,   // many: one line of it
};
template <class Step, int R, int V, Ahead kAhead = Ahead::kLine>
void micro_kernel(const GemmBlock& g, const uint8_t* b, int64_t i0, int64_t j0) {
  Vec acc[R][V];
  const int last = (int)(g.n - j0 < V * kLanes ? g.n - j0 - (V - 1) * kLanes
                                               : kLanes);  // columns of the last vector
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[r][v] = zero();
  }
  if (g.init && !g.row_scale) {
    const float* p = g.init + i0 * g.init_stride + j0;
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r, p += g.init_stride) {
#pragma GCC unroll 4
      for (int v = 0; v < V - 1; ++v) acc[r][v] = load(p + v * kLanes);
      acc[r][V - 1] = load_first(p + (V - 1) * kLanes, last);
    }
  }
  prefetch_gradient<R, V>(g, i0, j0);
  const uint8_t* a = (const uint8_t*)g.a + i0 * g.a_row;
  const int64_t a_row = g.a_row, a_step = g.a_step;
  // This kernel's share of what is wanted next; without it the same line of `a` again and again.
  const uint8_t* next = g.next ? g.next + i0 * g.next_row_bytes : a;
  const int64_t next_step =
      g.next && g.steps > 0 ? (R * g.next_row_bytes + g.steps - 1) / g.steps : 0;
  for (int64_t s = 0; s < g.steps; ++s) {
    if (kAhead != Ahead::kNone) {
#pragma GCC unroll 4
      for (int v = 0; v < (kAhead == Ahead::kLines ? kPanelVecs : 1); ++v)
        __builtin_prefetch(next + 64 * v, 0, 2);
      next += next_step;
    }
    Vec bv[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) bv[v] = load((const float*)b + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      Vec av = Step::spread(a + r * a_row);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[r][v] = Step::multiply_add(av, bv[v], acc[r][v]);
    }
    a += a_step;
    b += kPanel * 4;
  }
  if (g.half_step) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      Vec av = Step::spread_half(a + r * a_row);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) {
        acc[r][v] = Step::multiply_add(av, load((const float*)b + v * kLanes), acc[r][v]);
      }
    }
  }
  const bool plain = last == kLanes && !g.row_scale && !g.bias;
  if (plain && g.out == GemmOut::kBf16) {
    uint16_t* c = (uint16_t*)g.c + i0 * g.c_stride + j0;
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r, c += g.c_stride) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) store_bf16(c + v * kLanes, acc[r][v]);
    }
  } else if (plain && g.out == GemmOut::kF32) {
    float* c = (float*)g.c + i0 * g.c_stride + j0;
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r, c += g.c_stride) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) store(c + v * kLanes, acc[r][v]);
    }
  } else {
    alignas(64) float tile[R][V][kLanes];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) store(tile[r][v], acc[r][v]);
    }
    finish(g, tile[0][0], R, V, i0, j0, last);
  }
}

using MicroKernel = void (*)(const GemmBlock&, const uint8_t*, int64_t, int64_t);

// All rows times one panel of V vectors, which stays in L1 or L2 meanwhile. Rows: the numbers of
// rows that one pass may have.
template <class Step, int V, int... Rows>
void panel_kernel(const GemmBlock& g, const uint8_t* b, int64_t j0) {
  constexpr int kRows = kMaxRows[V];
  static_assert(sizeof...(Rows) == kRows);
  static constexpr MicroKernel kLine[] = {nullptr, micro_kernel<Step, Rows, V, Ahead::kLine>...};
  const MicroKernel* kernels = kLine;
  int64_t i = 0;
  if constexpr (V == kPanelVecs) {
    static constexpr MicroKernel kNone[] = {nullptr, micro_kernel<Step, Rows, V, Ahead::kNone>...};
    static constexpr MicroKernel kLines[] = {nullptr,
                                             micro_kernel<Step, Rows, V, Ahead::kLines>...};
    if (g.m < 2 * kRows) {
      i = g.m < kRows ? g.m : kRows;
      kNone[i](g, b, 0, j0);
    }
    if (g.next_row_bytes * kRows > 64 * g.steps) kernels = kLines;
  }
  for (; i + kRows <= g.m; i += kRows) kernels[kRows](g, b, i, j0);
  if (i < g.m) kernels[g.m - i](g, b, i, j0);
}

template <class Step>
void multiply(const GemmBlock& block) {
  GemmBlock g = block;
  const uint8_t* b = (const uint8_t*)g.b;
  for (int64_t j = 0; j < g.n; j += kPanel, b += g.b_panel) {
    int64_t left = g.n - j;
    g.next = left > kPanel ? b + g.b_panel : block.next;
    switch (left >= kPanel ? kPanelVecs : (int)((left + kLanes - 1) / kLanes)) {
#ifdef __AVX512F__
      case 1:
        panel_kernel<Step, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12>(g, b, j);
        break;
      case 2:
        panel_kernel<Step, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12>(g, b, j);
        break;
      case 3:
        panel_kernel<Step, 3, 1, 2, 3, 4, 5, 6, 7, 8>(g, b, j);
        break;
      default:
        panel_kernel<Step, 4, 1, 2, 3, 4, 5, 6>(g, b, j);
        break;
#else
      case 1:
        panel_kernel<Step, 1, 1, 2, 3, 4, 5, 6, 7, 8>(g, b, j);
        break;
      default:
        panel_kernel<Step, 2, 1, 2, 3, 4, 5, 6>(g, b, j);
        break;
#endif
    }
  }
}

// The ceiling: independent accumulators, operands in registers. per_lane: operations of a lane.
template <class Step>
double peak_of(int64_t rounds, int per_lane) {
#ifdef __AVX512F__
  constexpr int kAccumulators = 24;
#else
  constexpr int kAccumulators = 12;
#endif
  Vec acc[kAccumulators];
  for (int i = 0; i < kAccumulators; ++i) acc[i] = set1((float)i);
  Vec a = set1(1.0f), b = set1(0.5f);
  for (int64_t r = 0; r < rounds; ++r) {
    asm volatile("" : "+x"(a), "+x"(b));  // else the loop would be folded
#pragma GCC unroll 32
    for (int i = 0; i < kAccumulators; ++i) acc[i] = Step::multiply_add(a, b, acc[i]);
  }
  Vec all = zero();
  for (int i = 0; i < kAccumulators; ++i) all = add(all, acc[i]);
  volatile float used = sum(all);
  (void)used;
  return (double)rounds * kAccumulators * kLanes * per_lane;
}
double peak(int64_t rounds, bool bf16) {
#ifdef __AVX512BF16__
  if (bf16) return peak_of<StepBf16>(rounds, 4);
#endif
  return peak_of<StepF32>(rounds, 2);
}

#include "backend/cpu/isa/gemm_pack.inl"
#include "backend/cpu/isa/gemm_narrow.inl"
#include "backend/cpu/isa/gemm_rows.inl"

const GemmOperands kGemmF32{multiply<StepF32>,      pack_k_major<F32Units>,
                            pack_n_major<F32Units>, multiply_narrow<Singles>,
                            unpack<Singles>,        fp8_rows<F32Units>,
                            fp8_columns<F32Units>,  softmax_terms<F32Units>,
                            scale_terms<F32Units>,  logit_gradient<F32Units>};
#ifdef __AVX512BF16__
const GemmOperands kGemmBf16{multiply<StepBf16>,      pack_k_major<PairUnits>,
                             pack_n_major<PairUnits>, multiply_narrow<Pairs>,
                             unpack<Pairs>,           fp8_rows<PairUnits>,
                             fp8_columns<PairUnits>,  softmax_terms<PairUnits>,
                             scale_terms<PairUnits>,  logit_gradient<PairUnits>};
#endif

const GemmKernels kGemm{
    kPanel,     &kGemmF32,
#ifdef __AVX512BF16__
    &kGemmBf16,
#else
    nullptr,
#endif
    fp8_block,  widen,     column_sum, pack_narrow, peak,
};

}  // namespace gemm
using gemm::kGemm;
