#include "backend/cpu/quant_product.h"

#include <algorithm>
#include <memory>

#include "backend/cpu/product.h"
#include "backend/cpu/quant_type.h"
#include "backend/cpu/row_type.h"

namespace wels {
namespace {

DType type_of(const Weight& w) { return w.value[0].dtype; }

// All rows of x as the kernels read them.
struct RoundedRows {
  std::shared_ptr<void> memory;
  int64_t stride;  // bytes

  RoundedRows(const Kernels& k, Pool& pool, const Tensor& x, DType weight)
      : memory(pool.take(quant_row_bytes(x.rows, x.cols))), stride(quant_row_bytes(1, x.cols)) {
    CHECK(is_row_type(x));
    parallel_for(x.rows, row_grain(x.cols), [&](int64_t begin, int64_t end) {
      Tensor part = x.row_range(begin, end - begin);
      k.quant->round_rows({part.data, part.dtype == DType::kBF16, part.stride, part.rows, part.cols,
                           const_cast<QuantRecord*>(row(begin)), stride, quant_type(weight)});
    });
  }
  const QuantRecord* row(int64_t r) const {
    return reinterpret_cast<const QuantRecord*>(static_cast<const uint8_t*>(memory.get()) +
                                                r * stride);
  }
};

// Columns [col, col + y.cols) of matrix e for the rows from `row` on: y = x · wᵀ + bias.
void block(const Kernels& k, const RoundedRows& x, int64_t row, const Weight& w,
           const PackedWeight& pack, int64_t e, int64_t col, const float* bias, const Tensor& y) {
  QuantBlock g{};
  g.x = x.row(row);
  g.x_stride = x.stride;
  g.w = pack.expert(e) + col / kQuantLanes * pack.panel_bytes;
  g.w_panel = pack.panel_bytes;
  g.k = pack.k;
  g.m = y.rows;
  g.n = y.cols;
  g.bias = bias ? bias + col : nullptr;
  g.c = y.data;
  g.c_bf16 = y.dtype == DType::kBF16;
  g.c_stride = y.stride;
  g.sums = thread_scratch<float>(Scratch::kA, y.rows * kQuantSumLanes);
  k.quant->multiply[quant_type(type_of(w))](g);
}

std::vector<RowItem> items_of(const Kernels& k, const QuantProduct& p, const Weight& w) {
  return row_items(k, {.rows = p.x.rows,
                       .depth = w.cols,
                       .cols = w.rows,
                       .element_bytes = 1,
                       .offsets = p.offsets,
                       .panel = kQuantLanes});
}

void check_product(const QuantProduct& p, const Weight& w, const Tensor& y) {
  CHECK(p.x.cols == w.cols);
  CHECK(y.cols == w.rows);
  CHECK(y.rows == p.x.rows);
  CHECK(is_row_type(y));
}

}  // namespace

bool is_quant_product(const Weight& w, bool fp8) {
  return !w.value.empty() && is_quantised(type_of(w)) && !w.full_precision && !fp8;
}

int64_t quant_pack_bytes(const Weight& w) {
  int64_t panels = (w.rows + kQuantLanes - 1) / kQuantLanes;
  return w.experts() * panels * quant_panel_bytes(quant_panel(type_of(w)), w.cols);
}

void multiply_quant(const Kernels& k, Pool& pool, const QuantProduct& p, const Weight& w,
                    const float* bias, const Tensor& y) {
  check_product(p, w, y);
  const PackedWeight& pack = quant_packed_weight(k, w, p.use);
  RoundedRows x(k, pool, p.x, type_of(w));
  std::vector<RowItem> items = items_of(k, p, w);
  auto item = [&](size_t i) {
    const RowItem& it = items[i];
    block(k, x, it.row, w, pack, it.expert, it.col, bias,
          y.row_range(it.row, it.rows).col_range(it.col, it.cols));
  };
  run_items(items.size(), 2 * p.x.rows * w.rows * w.cols, item, order_of(items));
}

void multiply_quant_gated(const Kernels& k, Pool& pool, const QuantProduct& p, const Weight& gate,
                          const Weight& up, const Tensor& y, const Tensor& g, const Tensor& u) {
  check_product(p, gate, y);
  const PackedWeight &gate_pack = quant_packed_weight(k, gate, p.use),
                     &up_pack = quant_packed_weight(k, up, p.use);
  check_product(p, up, y);
  CHECK(gate.experts() == up.experts());
  RoundedRows x(k, pool, p.x, type_of(gate));
  std::unique_ptr<RoundedRows> other;
  if (type_of(up) != type_of(gate))
    other = std::make_unique<RoundedRows>(k, pool, p.x, type_of(up));
  const RoundedRows& x_up = other ? *other : x;
  std::vector<RowItem> items = items_of(k, p, gate);
  auto item = [&](size_t i) {
    const RowItem& it = items[i];
    join_strips(k, it, strip_of(it, kQuantLanes), y, g, u,
                [&](int64_t c, const Tensor& gs, const Tensor& us) {
                  block(k, x, it.row, gate, gate_pack, it.expert, c, nullptr, gs);
                  block(k, x_up, it.row, up, up_pack, it.expert, c, nullptr, us);
                });
  };
  run_items(items.size(), 4 * p.x.rows * gate.rows * gate.cols, item, order_of(items));
}

}  // namespace wels
