// What the matrix products need from an instruction set.
//
// One product of blocks, C [m, n] = A [m, k] · B [k, n], walks k in steps of 4 bytes: one f32, or
// two neighbouring bf16 (vdpbf16ps adds both products to an f32 lane). A stays where it is,
// row-major or transposed, and is read by 4-byte broadcasts; B lies packed in panels of `panel`
// columns, [step][column], so that a step is a few full vectors. For every element of C the sum
// runs over k in one order, whatever m, n, the tile shapes or the number of threads: a row's bits
// do not depend on the rows beside it.
#pragma once
#include <cstdint>

namespace wels {

// How a result is written. Add: what is in c is added to the finished sum.
enum class GemmOut : uint8_t { kF32, kF32Add, kBf16, kBf16Add };

// c (+)= init + (a · b) · (row_scale ⊗ col_scale) + bias; init, both scales and bias may be null.
struct GemmBlock {
  const void* a;
  int64_t a_row, a_step;  // bytes from row to row, from step to step
  const void* b;
  int64_t b_panel;  // bytes from panel to panel; within one, steps are panel · 4 bytes apart
  int64_t m, n;
  int64_t steps;      // whole 4-byte steps of k
  bool half_step;     // bf16: one more element of A after them (its partner in B is zero)
  const float* init;  // [m, n], starts the sums: the same bits as one longer k
  int64_t init_stride;
  const float* row_scale;  // [m], every row_scale_stride
  int64_t row_scale_stride;
  const float* col_scale;  // [n]
  const float* bias;       // [n]
  void* c;
  int64_t c_stride;  // elements
  GemmOut out;
  // What is read after the last panel (null: nothing). It and, before, each next panel are brought
  // to L2 meanwhile, next_row_bytes for each row.
  const uint8_t* next;
  int64_t next_row_bytes;
};

// How the values of B's panels are stored: as units of 4 bytes, or narrower, as a checkpoint has
// them: [k][panel]. E4M3 codes have an f32 scale per 128 × 128 block of the weight.
enum class PanelType : uint8_t { kUnits, kBf16, kF16, kE4m3 };
struct NarrowPanels {
  PanelType type;
  int64_t step;  // bytes from one k to the next: a panel's width, or a row of a weight in place
  const float* scales;  // E4M3: [rows / 128, k / 128], of the whole weight
  int64_t scales_stride;
  int64_t first_row;  // row of the weight that the first panel begins with
};
inline constexpr int64_t kNarrowRows = 12;  // of x, that pay as multiply_narrow, and in pairs
inline constexpr int64_t kNarrowPairRows = 6;

// Packing of B (or of a transposed A, with a width of its own) into panels of `width` columns,
// padded with zeros in k.
struct PackBlock {
  const void* src;
  bool src_bf16;       // else f32
  int64_t src_stride;  // elements
  int64_t k, n;        // pack_k_major: src is [k, n]; pack_n_major: src is [n, k]
  void* dst;
  int64_t panel_bytes;
  int width;  // GemmKernels::panel; pack_k_major: or kTransposedWidth
};

// Rounding to E4M3 with one scale per 128 elements (tensor/fp8.h); the codes' values are written,
// exact in bf16 too.
struct Fp8Block {
  const void* src;
  bool src_bf16;
  int64_t src_stride, rows, cols;
  void* dst;  // bf16 or f32 as the kernel's operands are
  int64_t dst_stride;
  float* scale;
  int64_t scale_stride;
};

// The kernels for one type of operands: f32, or bf16 in pairs.
struct GemmOperands {
  void (*multiply)(const GemmBlock& g);
  void (*pack_k_major)(const PackBlock& p);
  void (*pack_n_major)(const PackBlock& p);
  // B in narrow panels, without init and row_scale: the bits of unpacked panels.
  void (*multiply_narrow)(const GemmBlock& g, const NarrowPanels& p);
  // k values of one narrow panel as units. scales: of the panel's columns, from the first k on (a
  // multiple of 128) on.
  void (*unpack)(const uint8_t* panel, PanelType type, const float* scales, int64_t k, void* units);
  // scale [rows, ceil(cols / 128)]: one per row and 128 columns
  void (*fp8_rows)(const Fp8Block& q);
  void (*fp8_columns)(const Fp8Block& q);  // rows <= 128, scale [cols]: one per column
  // One more block of a row of logits: max and sum of e^(z - max), both updated. terms (null: not
  // wanted): the block's own e^(z - new max), in the operands' type; the sum is that of the
  // unrounded ones.
  void (*softmax_terms)(const float* z, int64_t n, float* max, float* sum, void* terms);
  // terms[i] = scale · terms[i], in the operands' type.
  void (*scale_terms)(void* terms, int64_t n, float scale);
  // out[i] = d · ([i = target] - e^(z[i] - lse)), in the operands' type: the gradient of
  // token_logp's logits.
  void (*logit_gradient)(const float* z, int64_t n, float lse, float d, int64_t target, void* out);
};

struct GemmKernels {
  int panel;  // columns of a panel of B
  const GemmOperands* f32;
  const GemmOperands* bf16;  // null: bf16 operands are widened to f32
  // f32 to f32, one scale for all rows and columns, as a weight block has
  void (*fp8_block)(const Fp8Block& q);
  void (*widen)(const uint16_t* bf16, float* f32, int64_t n);
  // out [cols] (+)= the sum of rows, one after another. cols <= panel.
  void (*column_sum)(const void* src, bool src_bf16, int64_t stride, int64_t rows, int64_t cols,
                     float* out, bool add);
  // Rows [n, k] of a weight, as they are stored, to narrow panels one after another.
  void (*pack_narrow)(const void* src, int64_t stride, int64_t n, int64_t k, PanelType type,
                      void* dst);
  // Multiply-adds · 2 done by `rounds` rounds of independent register operations: what products of
  // bf16 or f32 run on, so f32 operations for both where bf16 is null.
  double (*peak)(int64_t rounds, bool bf16);
};

// Width of a packed transposed A: a multiple of every micro-kernel's rows and of whole vectors. 24
// is not the latter: packing then took 8 cycles a vector in place of 5 (Xeon, 2026-11-24).
inline constexpr int kTransposedWidth = 48;

}  // namespace wels
