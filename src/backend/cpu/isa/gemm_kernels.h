// What the matrix products need from an instruction set.
//
// One product of blocks, C [m, n] = A [m, k] · B [k, n], walks k in steps of 4 bytes: one f32, or two neighbouring bf16
// (vdpbf16ps adds both products to an f32 lane). A stays where it is, row-major or transposed, and is read by 4-byte
// broadcasts; B lies packed in panels of `panel` columns, [steps][columns of the panel], so that a step is a few full vectors.
// For every element of C the sum runs over k in one order, whatever m, n, the tile shapes or the number of threads: a row's
// bits do not depend on the rows beside it.
#pragma once
#include <cstdint>

namespace wels {

enum class GemmOut : uint8_t { kF32, kF32Add, kBf16, kBf16Add };

// c (+)= init + (a · b) · row_scale ⊗ col_scale + bias; all pointers but a, b, c may be null.
struct GemmBlock {
  const void* a;
  int64_t a_row, a_step;  // bytes from row to row, from step to step
  const void* b;
  int64_t b_panel;        // bytes from panel to panel
  int64_t m, n;
  int64_t steps;          // whole 4-byte steps of k
  bool half_step;         // bf16 only: one more element of A after them (its partner in B is zero)
  const float* init;      // [m, n], starts the sums: the same bits as one longer k
  int64_t init_stride;
  const float* row_scale; // [m] every row_scale_stride
  int64_t row_scale_stride;
  const float* col_scale; // [n]
  const float* bias;      // [n]
  void* c;
  int64_t c_stride;       // elements
  GemmOut out;
};

struct GemmKernels {
  int panel;             // columns of a full panel; a shorter last panel is padded to `lanes`
  int lanes;
  bool bf16;             // whether the bf16 kernels exist; else bf16 operands are widened to f32
  void (*f32)(const GemmBlock& g);
  void (*bf16_pairs)(const GemmBlock& g);
};

}  // namespace wels
