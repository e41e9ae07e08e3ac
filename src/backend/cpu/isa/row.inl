// The table of row kernels (row_kernels.h says what each does).
namespace row {
#include "backend/cpu/isa/row_sweep.inl"
#include "backend/cpu/isa/row_basic.inl"
#include "backend/cpu/isa/row_moe.inl"
#include "backend/cpu/isa/row_norm.inl"
#include "backend/cpu/isa/row_optimizer.inl"
}  // namespace row

#define WELS_ROW_1(kernel) \
  { row::kernel<row::F32>, row::kernel<row::B16> }
#define WELS_ROW_2(kernel)                                                \
  {                                                                       \
    {row::kernel<row::F32, row::F32>, row::kernel<row::F32, row::B16>}, { \
      row::kernel<row::B16, row::F32>, row::kernel<row::B16, row::B16>    \
    }                                                                     \
  }
const RowKernels kRow{
    .copy = WELS_ROW_2(copy_row),
    .to_q8_0 = WELS_ROW_1(to_q8_0_row),
    .from_q8_0 = WELS_ROW_1(from_q8_0_row),
    .add = WELS_ROW_2(add_row),
    .gather_sum = WELS_ROW_2(gather_sum_row),
    .rms_norm = WELS_ROW_2(rms_norm_row),
    .rms_norm_backward = WELS_ROW_2(rms_norm_backward_row),
    .rope = WELS_ROW_1(rope_head),
    .swiglu = WELS_ROW_1(swiglu_row),
    .swiglu_backward = WELS_ROW_1(swiglu_backward_row),
    .combine = WELS_ROW_1(combine_row),
    .combine_backward = WELS_ROW_1(combine_backward_row),
    .scores = row::scores_row,
    .top_k = row::top_k_row,
    .sum = row::sum_row,
    .scale = row::scale_row,
    .balance_backward = row::balance_backward_row,
    .sum_squares = WELS_ROW_1(sum_squares_row),
    .adamw = row::adamw_row,
    .axpby = row::axpby_row,
};
#undef WELS_ROW_1
#undef WELS_ROW_2
