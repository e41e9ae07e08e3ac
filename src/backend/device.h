// Device: THE op interface. One virtual function per op and direction; everything above (nn, model,
// training, engine) is written against it, everything below (ref, cpu, cuda) implements it.
// RefDevice says in plain loops what each op means.
//
// Conventions. n rows (tokens), d width; letters as in docs/glossary.md. "T" is the activation
// dtype: f64 (ref only), f32 or bf16; all T arguments of a call have the same. Sums are f32 (f64 on
// ref<double>). Outputs are allocated by the caller and never alias inputs unless said. `Accum`
// says whether a gradient output is set or added to. Gradients of parameters are f32 (f64 on
// ref<double>). Index tensors are i32. A 0-row call does nothing. Results of a row do not depend on
// the other rows of the call (batch invariance), nor on the number of threads, bit for bit.
#pragma once
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

#include "tensor/pool.h"
#include "tensor/tensor.h"
#include "tensor/weight.h"

namespace wels {

// --- parameters of the ops (plain data) ---

struct RopeParams {
  int heads = 1;     // rotated vectors per row
  int head_dim = 0;  // width of one head in the row (not rotated part first)
  int rotated = 0;   // dr: the LAST `rotated` columns of each head turn, the others are copied
  bool interleaved = true;  // pairs (2i, 2i+1) as DeepSeek; false: (i, i + dr/2) as Qwen2, Llama
  bool inverse = false;     // rotate backwards (the gradient)
};

// Attention of one ragged batch. Head i of q attends with kv head i / (heads / kv_heads).
struct AttendParams {
  int heads = 0, kv_heads = 0;
  int dk = 0;  // key columns per kv head, at k.col(head * k_step)
  // Further key columns that all heads share (MLA's k^R), after dk in each q head; 0: none.
  int dr = 0;
  int dv = 0;  // value columns per kv head, at v.col(head * v_step)
  int k_step = 0, v_step = 0;
  double scale = 1.0;
  int shared_col = -1;  // attend_cached: where in the pool the dr columns lie; -1: behind the dk
};

// Rows [q_begin, q_begin + q_rows) of q see rows [k_begin, k_begin + k_rows) of the keys, causally:
// the last query sees all, query i sees the first k_rows - q_rows + i + 1.
struct AttendSegment {
  int64_t q_begin, q_rows, k_begin, k_rows;
};

// The same over a paged cache: key j of the segment is row pages[j / page_rows] * page_rows + j %
// page_rows of the pool.
struct CachedSegment {
  int64_t q_begin, q_rows, k_rows;
  std::span<const int32_t> pages;
};

struct RouteParams {
  int experts = 0, top_k = 0;
  int groups = 1, top_groups = 1;  // group-limited routing (V3 §2.1.2); 1, 1: off
  bool sigmoid = true;             // else softmax
  bool group_top2 = true;          // group score: sum of the two largest (V3) or the largest (V2)
  bool normalize = true;           // divide by the sum of the chosen scores
  double scale = 1.0;              // routed_scaling_factor
};

// What the head is asked of n rows.
struct Targets {
  Tensor id;         // i32 [1, n]; -1: no target, and its log-probability is 0
  Tensor kept = {};  // i32 [n, ceil(vocab / 32)]: the softmax is over tokens whose bit is set (v %
                     // 32 of word v / 32), a target among them; empty: over all
  double temperature = 1;  // that the logits are divided by
  Targets(const Tensor& id, const Tensor& kept = {}, double temperature = 1)
      : id(id), kept(kept), temperature(temperature) {}
  Targets range(int64_t begin, int64_t rows) const {
    return {id.col_range(begin, rows), kept.empty() ? kept : kept.row_range(begin, rows),
            temperature};
  }
};

struct AdamWParams {
  float lr, beta1, beta2, eps, weight_decay;
  float grad_scale;    // clipping coefficient (and 1 / accumulation steps)
  float bias1, bias2;  // 1 - beta1^t, 1 - beta2^t
};

// The most probable tokens of n distributions over the vocabulary, and how much the others have
// together.
struct TopTokens {
  Tensor id;    // i32 [n, k], distinct in a row; -1: no such token. Row's first -1: no distribution
  Tensor logp;  // [n, k] f32 (f64 on ref<double>)
  Tensor tail;  // [n, 1] the same: probability of all tokens not named, >= 0
  int64_t k() const { return id.cols; }
};

inline constexpr double kLeastMass = 1e-30;  // of a bucket, where its logarithm is taken

struct KlParams {
  bool reverse = false;    // KL(student || teacher), else KL(teacher || student)
  double temperature = 1;  // of the student's logits, which are divided by it
};

// Who multiplies with a weight, for Device::packed_bytes: x · wᵀ of matmul and its kin; dy · w;
// absorb_query; the forwards that take a quantised weight's decoded values (absorb_output,
// token_logp), for other weights the same as kForward.
enum class PackUse : uint8_t { kForward, kBackward, kQuery, kDecoded };

// The largest calls of a training step, for Device::work_bytes.
struct WorkShape {
  bool fp8 = false;
  int64_t widest = 0;                      // in or out of a matmul
  int64_t gemm_right = 0;                  // elements of gemm's right operand
  int64_t quant_rows = 0, quant_cols = 0;  // of x, for the largest x · wᵀ, w quantised
  int64_t head_rows = 0, head_cols = 0, head_vocab = 0;  // of the head's gradient
  DType dtype = DType::kF32;                             // of the activations
  AttendParams attend;                                   // of attend_backward
  int64_t attend_rows = 0, attend_segments = 0, longest_segment = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual std::string name() const = 0;  // "ref", "cpu (avx512_bf16, 2 threads)"

  // --- memory ---
  // A buffer for tensors. Throws Error when there is none. The default is the host's memory.
  virtual void* allocate(int64_t bytes) { return allocate_host(bytes); }
  virtual void release(void* p, int64_t bytes) { free_host(p, bytes); }
  // What the device will keep beside `w` for its kernels, activations being of `dtype`. Reads
  // shapes, dtypes and flags of w only.
  virtual int64_t packed_bytes(const Weight& w, DType dtype, bool fp8, PackUse use) const {
    return 0;
  }
  // An upper bound of the work space that it will keep for itself after such calls.
  virtual int64_t work_bytes(const WorkShape& largest) const { return 0; }

  // --- plain copies ---
  // Between host memory and a contiguous tensor of the same bytes. The default is for devices that
  // share the host's memory.
  virtual void upload(const void* host, Tensor t) {
    std::memcpy(t.data, host, static_cast<size_t>(t.bytes()));
  }
  virtual void download(const Tensor& t, void* host) {
    std::memcpy(host, t.data, static_cast<size_t>(t.bytes()));
  }
  // dst (+)= src with conversion between f64, f32, bf16 (views allowed; shapes equal).
  virtual void copy(const Tensor& src, Tensor dst, Accum accum = Accum::kSet) = 0;
  virtual void zero(Tensor t) = 0;
  // y [n, d] = x's rows index[i]; index -1 gives zeros. Any T; x may also be Q8_0, y f64, f32 or
  // bf16, and where they differ values are rounded to y's type.
  virtual void gather_rows(const Tensor& x, const Tensor& index, Tensor y) = 0;
  // y's rows index[i] = x's row i (indices distinct; -1 skips the row); other rows of y stay. Where
  // types differ (y f32, bf16 or Q8_0) values are rounded to y's. Q8_0 (a row of a KV cache): y has
  // x's columns rounded up to whole blocks, the last one filled up with zeros, and a block of 32
  // values is, in f32: d = largest |x| / 127 rounded to a half; q = x · (1 / d) to the nearest
  // whole number, ties to even, at most 127 (d = 0: all zero). NaN or infinite x, or d beyond a
  // half: d is NaN and q zero. Error at most d / 2 and what rounding d leaves of it, 0.5 % of the
  // block's largest value. Devices agree bit for bit.
  virtual void scatter_rows(const Tensor& x, const Tensor& index, Tensor y) = 0;
  // y[t] (+)= sum_j x[index[t, j]] over the k columns of index, in order j = 0..k-1; -1 skips. The
  // gradient of a dispatch.
  virtual void gather_sum(const Tensor& x, const Tensor& index, Tensor y, Accum accum) = 0;

  // --- embedding ---
  // y [n, d] (T or f32) = w[ids[i]].
  virtual void embed(const Tensor& ids, const Weight& w, Tensor y) = 0;
  // dw[ids[i]] += dy[i], in row order.
  virtual void embed_backward(const Tensor& ids, const Tensor& dy, Tensor dw) = 0;

  // --- matrix products ---
  // y [n, out] = x [n, in] · wᵀ (+ bias). y: T, or f32. w.full_precision: computed in f32 whatever
  // T is. fp8: both operands rounded to E4M3 with V3's scales (x 1×128, w 128×128), f32 promotion
  // every 128 of `in`.
  //
  // A weight of a block type (tensor/quant.h; and neither fp8 nor full_precision) is multiplied as
  // it is, value = s · (code - offset) + min per group of 32 or 16 columns (tensor/quant_codes.h),
  // and the row of x is rounded to int8 per 32 columns: largest |x| of them / 127 is their scale
  // dx, q = x · (1 / dx) to the nearest whole number, ties to even (largest below 2^-100: all zero;
  // NaN or infinite: dx is NaN). Per 32 columns, all in f32, D the group's whole sum of
  // q · (code - offset), S of q:
  //   p = s0 · D0;  p = fma(s1, D1, p) with groups of 16;  p = fma(min, S, p) per group with minima
  //   y = fma(p, dx, y), y = 0 at first
  // Devices in f32 agree bit for bit. Against the product with x unrounded, per 32 columns: an
  // error of at most dx / 2 times the sum of |w|.
  virtual void matmul(const Tensor& x, const Weight& w, const Weight* bias, Tensor y,
                      bool fp8 = false) = 0;
  // dx [n, in] (+)= dy [n, out] · w. Gradients take a quantised weight's decoded values.
  virtual void matmul_dx(const Tensor& dy, const Weight& w, Tensor dx, Accum accum,
                         bool fp8 = false) = 0;
  // dw [out, in] (+)= dyᵀ · x
  virtual void matmul_dw(const Tensor& dy, const Tensor& x, Tensor dw, Accum accum,
                         bool fp8 = false) = 0;
  // The same per expert: rows [offsets[e], offsets[e+1]) use w.value[e]. offsets i32 [1, experts +
  // 1].
  virtual void grouped_matmul(const Tensor& x, const Weight& w, const Tensor& offsets, Tensor y,
                              bool fp8 = false) = 0;
  virtual void grouped_matmul_dx(const Tensor& dy, const Weight& w, const Tensor& offsets,
                                 Tensor dx, Accum accum, bool fp8 = false) = 0;
  // dw: one [out, in] per expert. An expert without rows: kSet gives zeros.
  virtual void grouped_matmul_dw(const Tensor& dy, const Tensor& x, const Tensor& offsets,
                                 std::span<const Tensor> dw, Accum accum, bool fp8 = false) = 0;
  // The first half of a SwiGLU feed-forward: y = silu(g) · u of g = x · gateᵀ and u = x · upᵀ, both
  // rounded to T first. x [n, d] · gate, up [f, d], of the same kind · offsets as in
  // grouped_matmul; empty: one matrix for all rows · y [n, f] T · g, u [n, f] T for the backward;
  // empty: not stored. Source: Shazeer 2020.
  virtual void gated_matmul(const Tensor& x, const Weight& gate, const Weight& up,
                            const Tensor& offsets, Tensor y, Tensor g, Tensor u,
                            bool fp8 = false) = 0;
  // Turns g and u, as the forward stored them, into their gradients dg and du, rounded to T, and
  // dx [n, d] (+)= dg · gate + du · up, whose sum is rounded once. dx empty: not wanted.
  virtual void gated_matmul_dx(const Tensor& dy, const Weight& gate, const Weight& up,
                               const Tensor& offsets, Tensor g, Tensor u, Tensor dx, Accum accum,
                               bool fp8 = false) = 0;
  // y = silu(g) · u, the join of gated_matmul alone, for products that were made apart. All [n, f]
  // T. Its backward is gated_matmul_dx without dx.
  virtual void swiglu(const Tensor& g, const Tensor& u, Tensor y) = 0;
  // dgate (+)= dgᵀ · x, dup (+)= duᵀ · x: one [f, d] per expert each, as grouped_matmul_dw.
  virtual void gated_matmul_dw(const Tensor& dg, const Tensor& du, const Tensor& x,
                               const Tensor& offsets, std::span<const Tensor> dgate,
                               std::span<const Tensor> dup, Accum accum, bool fp8 = false) = 0;
  // db [1, d] (+)= sum of dy's rows.
  virtual void column_sum(const Tensor& dy, Tensor db, Accum accum) = 0;
  // c [m, n] = alpha · op(a) · op(b) + beta · c, all f32 (Muon's Newton-Schulz). transpose_x: op(x)
  // = xᵀ.
  virtual void gemm(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b,
                    float alpha, float beta, Tensor c) = 0;

  // --- norms, positions, residual stream ---
  // y = x / rms(x) · gain, rms(x) = sqrt(mean(x²) + eps). x [n, d] T or f32 · gain [1, d] · y T ·
  // inv_rms [n, 1] f32, may be empty. Source: Zhang & Sennrich 2019, eq. 4.
  virtual void rms_norm(const Tensor& x, const Weight& gain, float eps, Tensor y,
                        Tensor inv_rms) = 0;
  // dx (as x) and dgain += from dy (as y). dgain may be empty (frozen).
  virtual void rms_norm_backward(const Tensor& x, const Weight& gain, const Tensor& inv_rms,
                                 const Tensor& dy, Tensor dx, Accum accum, Tensor dgain) = 0;
  // y (+)= x with the last `rotated` columns of every head turned by the angle of its row's
  // position. x, y [n, heads·head_dim] T · pos i32 [1, n] · cos, sin [positions, rotated/2] f32
  // (f64 on ref<double>).
  virtual void rope(const Tensor& x, const Tensor& pos, const Tensor& cos, const Tensor& sin,
                    const RopeParams& p, Tensor y, Accum accum = Accum::kSet) = 0;
  // y = a + b: a, y f32 or T · b T. y may alias a.
  virtual void add(const Tensor& a, const Tensor& b, Tensor y) = 0;
  // y (+)= factor · x, all T.
  virtual void scale(const Tensor& x, float factor, Tensor y, Accum accum) = 0;

  // --- attention ---
  // y [n, heads·dv] T from q [n, heads·(dk+dr)], k, v (columns as AttendParams says), shared [keys,
  // dr] or empty. lse [n, heads] f32 or empty: log of the softmax's denominator, saved for the
  // backward.
  virtual void attend(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& shared,
                      std::span<const AttendSegment> segments, const AttendParams& p, Tensor y,
                      Tensor lse) = 0;
  // Sets dq, dk, dv, dshared (all columns named by p; dk and dv may interleave in one tensor as k
  // and v do).
  virtual void attend_backward(const Tensor& q, const Tensor& k, const Tensor& v,
                               const Tensor& shared, std::span<const AttendSegment> segments,
                               const AttendParams& p, const Tensor& y, const Tensor& lse,
                               const Tensor& dy, Tensor dq, Tensor dk, Tensor dv,
                               Tensor dshared) = 0;
  // Decode and chunked prefill over the paged cache `pool` [pages·page_rows, width]: key of kv head
  // g at columns k_col + g·k_step (dk wide), the shared columns behind it or at p.shared_col, value
  // at v_col + g·v_step. The pool: of T, f32, bf16 or Q8_0 (parts begin with a block), values taken
  // as they are or rounded to T; in Q8_0, dk and dr whole blocks, a device may round q to int8 as
  // matmul does x, for the scores of all calls. Absorbed MLA: kv_heads 1, dk = r, dv = r, v_col 0.
  virtual void attend_cached(const Tensor& q, const Tensor& pool, int page_rows,
                             std::span<const CachedSegment> segments, const AttendParams& p,
                             int k_col, int v_col, Tensor y) = 0;
  // Absorbed MLA (V3 eq. 1-11 rearranged): q' head i = [q_nope_i · W_UK,i ; q_rope_i].
  // q [n, h·(dn+dr)] · kv_b [h·(dn+dv), r] · y [n, h·(r+dr)].
  virtual void absorb_query(const Tensor& q, const Weight& kv_b, int heads, int dn, int dr, int dv,
                            Tensor y) = 0;
  // y head i = W_UV,i · x_i.  x [n, h·r] · y [n, h·dv].
  virtual void absorb_output(const Tensor& x, const Weight& kv_b, int heads, int dn, int dv,
                             Tensor y) = 0;

  // --- mixture of experts ---
  // Chooses experts: V3 eq. 12-16. logits [n, e] f32 · bias [1, e] f32 or empty (selection only) ·
  // given i32 [n, k] or empty: choices that are made already, in rows whose first is not -1 ·
  // expert i32 [n, k] by descending selection score, ties to the lower number · weight f32 [n, k] ·
  // load i32 [1, e] rows per expert (set).
  virtual void route(const Tensor& logits, const Tensor& bias, const Tensor& given,
                     const RouteParams& p, Tensor expert, Tensor weight, Tensor load) = 0;
  // dlogits is set from dweight; the choice is constant.
  virtual void route_backward(const Tensor& logits, const Tensor& expert, const Tensor& weight,
                              const Tensor& dweight, const RouteParams& p, Tensor dlogits) = 0;
  // Sequence-wise balance loss, V3 eq. 17-20 with alpha = 1: returns the sum over segments of sum_i
  // f_i P_i (f counts the top-k of the raw scores). Segments by rows of logits.
  virtual double balance_loss(const Tensor& logits, std::span<const AttendSegment> segments,
                              const RouteParams& p) = 0;
  // dlogits += factor · gradient of the above.
  virtual void balance_loss_backward(const Tensor& logits, std::span<const AttendSegment> segments,
                                     const RouteParams& p, float factor, Tensor dlogits) = 0;
  // Counting sort of the (token, choice) pairs by expert, stable. expert i32 [n, k] · offsets i32
  // [1, e+1] · token_of i32 [1, n·k] token of each sorted slot · slot_of i32 [n, k] its inverse.
  virtual void dispatch(const Tensor& expert, int experts, Tensor offsets, Tensor token_of,
                        Tensor slot_of) = 0;
  // y[t] = sum_j weight[t, j] · rows[slot_of[t, j]] (+ extra[t] if not empty: the shared experts).
  virtual void combine(const Tensor& rows, const Tensor& slot_of, const Tensor& weight,
                       const Tensor& extra, Tensor y) = 0;
  // drows[slot_of[t, j]] = weight[t, j] · dy[t]; dweight[t, j] = <dy[t], rows[slot_of[t, j]]>.
  virtual void combine_backward(const Tensor& rows, const Tensor& slot_of, const Tensor& weight,
                                const Tensor& dy, Tensor drows, Tensor dweight) = 0;

  // --- output head ---
  // logp [n, 1] = log softmax(h · headᵀ / temperature)[target], lse [n, 1]: both f32 (f64 on
  // ref<double>). The [n, vocab] logits exist only in tiles. h [n, d] T.
  virtual void token_logp(const Tensor& h, const Weight& head, const Targets& target, Tensor logp,
                          Tensor lse) = 0;
  // dh (+)= and dhead (+)= for the upstream gradient dlogp [n, 1]. dhead may be empty (frozen).
  virtual void token_logp_backward(const Tensor& h, const Weight& head, const Targets& target,
                                   const Tensor& lse, const Tensor& dlogp, Tensor dh, Accum accum,
                                   Tensor dhead, Accum dhead_accum) = 0;
  // Both at once for a dlogp that is known beforehand: logp, the same bits as token_logp's; dh is
  // set, dhead (+)=. A device may use each logit for all three while it has it. dh and dhead may be
  // empty.
  virtual void token_logp_and_gradient(const Tensor& h, const Weight& head, const Targets& target,
                                       const Tensor& dlogp, Tensor logp, Tensor dh, Tensor dhead,
                                       Accum dhead_accum) = 0;

  // The k = top.k() most probable tokens of softmax(h · headᵀ / temperature) in each row, by
  // descending probability, ties to the lower id; -1 and logp 0 behind the vocabulary's end. The
  // tail is a sum of its own, not 1 minus the others.
  virtual void top_tokens(const Tensor& h, const Weight& head, double temperature,
                          const TopTokens& top) = 0;
  // kl [n, 1]: divergence in nats between the student's softmax(h · headᵀ / T) and a teacher's
  // distribution, over the teacher's k tokens and one bucket for all the others; 0 for rows without
  // a teacher. A teacher's bucket counts as at least kLeastMass. slope [n, k + 2], for the
  // backward: d kl / d (z / T) of the k tokens; of the whole bucket; log of the bucket's sum of
  // e^(z / T).
  virtual void token_kl(const Tensor& h, const Weight& head, const TopTokens& teacher,
                        const KlParams& p, Tensor kl, Tensor slope) = 0;
  // dh (+)= and dhead (+)= for the upstream gradient dkl [n, 1]. dh, dhead may be empty.
  virtual void token_kl_backward(const Tensor& h, const Weight& head, const TopTokens& teacher,
                                 const KlParams& p, const Tensor& slope, const Tensor& dkl,
                                 Tensor dh, Accum accum, Tensor dhead, Accum dhead_accum) = 0;

  // --- optimiser ---
  // Sum of squares in f64, in a fixed order; NaN or Inf if any element is.
  virtual double sum_squares(const Tensor& t) = 0;
  // Decoupled weight decay (Loshchilov & Hutter 2019): w -= lr·wd·w; m, v updated; w -=
  // lr·m̂/(sqrt(v̂)+eps). All f32.
  virtual void adamw(Tensor w, const Tensor& grad, Tensor m, Tensor v, const AdamWParams& p) = 0;
  // y = a·x + b·y, f32.
  virtual void axpby(float a, const Tensor& x, float b, Tensor y) = 0;

  // What the multiply-adds take that products of `dtype` (f32 or bf16) run on: bf16, or f32 where
  // the device has no faster instruction for bf16 operands and widens them.
  virtual DType product_dtype(DType dtype) const = 0;

  // Measured now, in about 50 ms: multiply-adds · 2 per second of all threads in registers, with
  // operands of product_dtype(dtype): the ceiling that speeds of products of `dtype` are reported
  // against. 0: the device has no fast path for it.
  virtual double measure_peak_flops(DType dtype) = 0;
};

// A pool of the device's memory. The device outlives all its buffers.
inline Pool device_pool(Device& dev) {
  return Pool([&dev](int64_t bytes) { return dev.allocate(bytes); },
              [&dev](void* p, int64_t bytes) { dev.release(p, bytes); });
}

}  // namespace wels
