// What attend.cc and attend_backward.cc share: the padded sizes of a call's operands and a thread's
// work space.
#pragma once
#include <cstdint>
#include <vector>

#include "backend/cpu/isa/attend_kernels.h"
#include "backend/device.h"

namespace wels {

inline int attend_row_type(DType t) { return t == DType::kQ8_0 ? 2 : t == DType::kBF16 ? 1 : 0; }

// Operand sizes in units (attend_kernels.h) and lanes.
struct AttendShape {
  const AttendTable* kernels;
  const AttendTable* f32;
  int type;                // of q and its like, as AttendTable::rows counts
  int dk, dv;              // elements of a key (shared columns included) and of a value
  int dk_units, dv_units;  // summands of a product over dk, over dv
  int k_ld, v_ld;          // units of a row
  int dk_pad, dv_pad;      // lanes, multiples of 16
  int group;               // query heads per kv head
  float scale, scale2;     // scale2: for powers of 2

  AttendShape(const AttendKernels& tables, DType dtype, const AttendParams& p)
      : kernels(dtype == DType::kBF16 ? &tables.bf16 : &tables.f32),
        f32(&tables.f32),
        type(attend_row_type(dtype)),
        dk(p.dk + p.dr),
        dv(p.dv),
        group(p.heads / p.kv_heads),
        scale(p.scale),
        scale2(p.scale * 1.44269504f) {
    const AttendTable& table = *kernels;
    dk_pad = (dk + 15) / 16 * 16;
    dv_pad = (dv + 15) / 16 * 16;
    k_ld = dk_pad / table.pair;
    v_ld = dv_pad / table.pair;
    dk_units = (dk + table.pair - 1) / table.pair;
    dv_units = (dv + table.pair - 1) / table.pair;
  }
};

inline const uint8_t* element(const Tensor& t, int64_t row, int64_t col) {
  return t.row_raw(row) + row_bytes(t.dtype, col);
}
inline uint8_t* element_out(const Tensor& t, int64_t row, int64_t col) {
  return t.row_raw(row) + row_bytes(t.dtype, col);
}

// This thread's work space: at least `floats` floats, 64-byte aligned, kept from call to call.
// Contents undefined.
float* attend_work(int64_t floats);

// Hands out pieces of a work space, or only adds up their sizes while there is none.
class Carver {
 public:
  explicit Carver(float* base) : base_(base) {}
  float* take(int64_t floats) {
    float* p = base_ ? base_ + used_ : nullptr;
    used_ += (floats + 31) / 16 *
             16;  // at least 16 spare: a vector load at the end of a row may reach past it
    return p;
  }
  int64_t used() const { return used_; }

 private:
  float* base_;
  int64_t used_ = 0;
};

// Makes a work struct W, whose constructor W(Carver&, args...) takes its pieces, in this thread's
// work space.
template <class W, class... Args>
W make_work(const Args&... args) {
  Carver count(nullptr);
  W(count, args...);
  Carver carve(attend_work(count.used()));
  return W(carve, args...);
}

void check_attend(const Tensor& q, const AttendParams& p);

}  // namespace wels
