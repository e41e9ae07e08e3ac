#include "backend/cpu/product.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "tensor/fp8.h"

namespace wels {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Bytes of x that a chunk of rows may take: half of the L2 cache, where the panel of the weight is
// too.
int64_t cached_rows() {
  static const int64_t bytes = [] {
    const int64_t l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return std::clamp<int64_t>(l2 > 0 ? l2 / 2 : 0, 256 << 10, 1 << 20);
  }();
  return bytes;
}

}  // namespace

std::vector<RowItem> row_items(const Kernels& k, const RowSplit& s) {
  constexpr int64_t kUnit = 24, kMost = 192;  // 24: a multiple of every micro-kernel's rows
  const int32_t whole[2] = {0, static_cast<int32_t>(s.rows)};
  std::span<const int32_t> offsets =
      s.offsets.empty() ? std::span<const int32_t>(whole) : s.offsets;
  bool serial = s.rows * s.depth * s.cols * 2 < kSerialFlops || thread_count() == 1;
  int64_t fit = cached_rows() / ((s.part ? s.part : s.depth) * s.element_bytes);
  if (s.columns == RowSplit::kWhole && !serial) fit = std::min(fit, s.rows / (4 * thread_count()));
  fit = std::clamp<int64_t>(fit / kUnit * kUnit, kUnit, kMost);
  int64_t chunks = 0;
  for (size_t e = 0; e + 1 < offsets.size(); ++e)
    chunks += ceil_div(offsets[e + 1] - offsets[e], fit);
  int64_t panel = s.panel ? s.panel : k.gemm->panel, panels = ceil_div(s.cols, panel);
  int64_t splits = 1;
  if (s.columns == RowSplit::kSplit && !serial && chunks > 0)
    splits = std::clamp<int64_t>(ceil_div(8 * thread_count(), chunks), 1, panels);
  int64_t split_cols = ceil_div(panels, splits) * panel;
  std::vector<RowItem> items;
  for (size_t e = 0; e + 1 < offsets.size(); ++e) {
    int64_t begin = offsets[e], rows = offsets[e + 1] - begin, parts = ceil_div(rows, fit);
    if (rows == 0) continue;
    int64_t step = ceil_div(ceil_div(rows, parts), kUnit) * kUnit;
    for (int64_t r = 0; r < rows; r += step) {
      for (int64_t c = 0; c < s.cols; c += split_cols) {
        items.push_back({static_cast<int64_t>(e), begin + r, std::min(step, rows - r), c,
                         std::min(split_cols, s.cols - c)});
      }
    }
  }
  // Large ones first: the last items to finish are short.
  std::stable_sort(items.begin(), items.end(), [](const RowItem& a, const RowItem& b) {
    return a.rows * a.cols > b.rows * b.cols;
  });
  return items;
}

LeftRows left_rows(const Kernels& k, const GemmOperands& ops, const Tensor& x, bool fp8) {
  if (!fp8) return {left_operand(k, ops, x)};
  int64_t blocks = ceil_div(x.cols, kFp8Block), stride = blocks * kFp8Block;
  DType element = element_type(k, ops);
  Tensor codes(thread_scratch(Scratch::kCodes, x.rows * stride * info(element).bytes), element,
               x.rows, x.cols, stride);
  float* scales = thread_scratch<float>(Scratch::kScales, x.rows * blocks);
  ops.fp8_rows({x.data, x.dtype == DType::kBF16, x.stride, x.rows, x.cols, codes.data, stride,
                scales, blocks});
  return {codes, scales};
}

int64_t depth_part(const PackedWeight& b, bool pairs) {
  constexpr int64_t kSteps = 1024, kNarrowSteps = 512;
  const int64_t depth = pairs ? 2 : 1;
  if (b.type != PanelType::kUnits) return kNarrowSteps * depth;
  if (b.k <= kSteps * depth * 3 / 2) return b.k;
  return ceil_div(ceil_div(b.k, ceil_div(b.k, kSteps * depth)), 2) * 2;
}

namespace {

constexpr int64_t kGroupColumns = 256;  // whose f32 sums stay in L2; whole panels

void multiply_codes(const Kernels& k, const GemmOperands& ops, const LeftRows& x,
                    const RightColumns& right, const Tensor& y, Accum accum) {
  int64_t depth = x.x.cols, blocks = ceil_div(depth, kFp8Block);
  const int64_t group = kGroupColumns;
  float* sums = thread_scratch<float>(Scratch::kC, y.rows * group);
  for (int64_t c = 0; c < y.cols; c += group) {
    int64_t n = std::min(group, y.cols - c);
    Tensor sum(sums, DType::kF32, y.rows, n, group);
    Tensor init = right.init.empty() ? Tensor() : right.init.col_range(c, n);
    for (int64_t b = 0; b < blocks; ++b, init = sum) {
      Tensor part =
          x.x.col_range(b * kFp8Block, std::min<int64_t>(kFp8Block, depth - b * kFp8Block));
      GemmBlock g = left_block(part, part.cols);
      g.b = right.b.expert(right.expert) + (right.col + c) / k.gemm->panel * right.b.panel_bytes +
            b * kFp8Block * info(part.dtype).bytes / 4 * k.gemm->panel * 4;
      g.b_panel = right.b.panel_bytes;
      g.n = n;
      g.row_scale = x.scales + b;
      g.row_scale_stride = blocks;
      g.col_scale = right.b.scale(right.expert, b) + right.col + c;
      g.init = static_cast<const float*>(init.data);
      g.init_stride = init.stride;
      if (b + 1 < blocks) {
        set_result(g, sum, Accum::kSet);
      } else {
        g.bias = right.bias ? right.bias + c : nullptr;
        set_result(g, y.col_range(c, n), accum);
      }
      ops.multiply(g);
    }
  }
}

// Few rows widen the panels' values on the way to the registers; for more, parts of a panel become
// units in L1 first, once for all rows. Weights that come from memory are asked for one part ahead:
// with 48 rows an expert, waiting for them took as long as multiplying.
void multiply_narrow(const Kernels& k, const GemmOperands& ops, const LeftRows& x,
                     const RightColumns& right, const Tensor& y, Accum accum) {
  CHECK(right.init.empty());
  const PackedWeight& b = right.b;
  int64_t panel = k.gemm->panel, depth = is_pairs(k, ops) ? 2 : 1,
          part = depth_part(b, is_pairs(k, ops));
  const uint8_t* panels = right.panels(k);
  NarrowPanels narrow{b.type, b.panel_bytes / b.k, nullptr, 0, right.col};
  if (b.type == PanelType::kE4m3) {
    const Tensor& scales = b.block_scales[static_cast<size_t>(right.expert)];
    narrow.scales = scales.row<float>(0);
    narrow.scales_stride = scales.stride;
  }
  if (y.rows <= (depth == 1 ? kNarrowRows : kNarrowPairRows)) {
    GemmBlock g = left_block(x.x, b.k);
    g.b = panels;
    g.b_panel = b.panel_bytes;
    g.n = y.cols;
    g.bias = right.bias;
    set_result(g, y, accum);
    return ops.multiply_narrow(g, narrow);
  }
  auto* units = thread_scratch<uint8_t>(Scratch::kB, part / depth * panel * 4);
  auto* sums = thread_scratch<float>(Scratch::kC, y.rows * kGroupColumns);
  for (int64_t first = 0; first < y.cols; first += kGroupColumns) {
    const int64_t end = std::min(first + kGroupColumns, y.cols);
    for (int64_t from = 0; from < b.k; from += part) {
      const int64_t count = std::min(part, b.k - from);
      const bool last = from + count == b.k;
      for (int64_t c = first; c < end; c += panel) {
        const int64_t n = std::min(panel, end - c);
        const uint8_t* of_panel = panels + c / panel * b.panel_bytes;
        const float* scales =
            narrow.scales ? narrow.scales + (right.col + c) / kFp8Block * narrow.scales_stride +
                                from / kFp8Block
                          : nullptr;
        ops.unpack(of_panel + narrow.step * from, b.type, scales, count, units);
        GemmBlock g = left_block(x.x.col_range(from, count), count);
        g.b = units;
        g.n = n;
        // What is unpacked next: of the group's next panel, then of its first again, then of the
        // next group.
        if (c + panel < end) {
          g.next = of_panel + b.panel_bytes + narrow.step * from;
        } else if (!last) {
          g.next = panels + first / panel * b.panel_bytes + narrow.step * (from + count);
        } else {
          g.next = end < y.cols ? of_panel + b.panel_bytes : right.next;
        }
        g.next_row_bytes = ceil_div(count * narrow.step, y.rows);
        const Tensor sum(sums + (c - first), DType::kF32, y.rows, n, kGroupColumns);
        g.init = from > 0 ? sum.row<float>(0) : nullptr;
        g.init_stride = kGroupColumns;
        if (last) g.bias = right.bias ? right.bias + c : nullptr;
        set_result(g, last ? y.col_range(c, n) : sum, last ? accum : Accum::kSet);
        ops.multiply(g);
      }
    }
  }
}

}  // namespace

void multiply_left(const Kernels& k, const GemmOperands& ops, const LeftRows& x,
                   const RightColumns& right, const Tensor& y, Accum accum) {
  if (x.scales) return multiply_codes(k, ops, x, right, y, accum);
  if (right.b.type != PanelType::kUnits) return multiply_narrow(k, ops, x, right, y, accum);
  // A part of the depth at a time, so that a panel's and x's stay in L2; the sums go on from part
  // to part.
  const int64_t part = depth_part(right.b, is_pairs(k, ops)), depth = right.b.k;
  const int64_t group = part < depth ? kGroupColumns : y.cols;
  float* sums = part < depth ? thread_scratch<float>(Scratch::kC, y.rows * group) : nullptr;
  for (int64_t c = 0; c < y.cols; c += group) {
    const int64_t n = std::min(group, y.cols - c);
    const Tensor sum(sums, DType::kF32, y.rows, n, group), to = y.col_range(c, n);
    Tensor init = right.init.empty() ? Tensor() : right.init.col_range(c, n);
    for (int64_t from = 0; from < depth; from += part, init = sum) {
      const int64_t count = std::min(part, depth - from);
      const bool last = from + count == depth;
      GemmBlock g = left_block(x.x.col_range(from, count), count);
      const uint8_t* panels = right.panels(k) + c / k.gemm->panel * right.b.panel_bytes;
      const int64_t step = k.gemm->panel * 4 / (is_pairs(k, ops) ? 2 : 1);
      g.b = panels + from * step;
      g.b_panel = right.b.panel_bytes;
      g.next = !last            ? panels + (from + count) * step
               : c + n < y.cols ? panels + n / k.gemm->panel * right.b.panel_bytes
                                : right.next;
      g.next_row_bytes = ceil_div(count * step, y.rows);
      g.n = n;
      g.init = static_cast<const float*>(init.data);
      g.init_stride = init.stride;
      if (last) g.bias = right.bias ? right.bias + c : nullptr;
      set_result(g, last ? to : sum, last ? accum : Accum::kSet);
      ops.multiply(g);
    }
  }
}

namespace {

struct Tile {
  const TransposedProduct* product;
  int64_t row, rows, col, cols;  // of dw
  int64_t work() const { return product->x.rows * rows * cols; }
};

// Tiles of dw: small enough for the packed blocks of both operands to stay in L2, and enough of
// them for all threads.
std::vector<Tile> tiles_of(const Kernels& k, std::span<const TransposedProduct> products) {
  constexpr int64_t kMostRows = 576, kMostCols = 384, kLeast = 48;
  int64_t total = 0;
  for (const auto& p : products) total += p.x.rows * p.dw.size();
  int64_t threads = total * 2 < kSerialFlops ? 1 : thread_count();
  int64_t fair = std::max<int64_t>(1, total / (threads * (products.size() > 1 ? 4 : 1)));
  std::vector<Tile> tiles;
  for (const auto& p : products) {
    int64_t row_parts = ceil_div(p.dw.rows, kMostRows), col_parts = ceil_div(p.dw.cols, kMostCols);
    while (threads > 1 && p.x.rows * p.dw.size() > fair * row_parts * col_parts * 5 / 4) {
      int64_t rows = p.dw.rows / row_parts, cols = p.dw.cols / col_parts;
      if (rows >= cols ? rows >= 2 * kLeast : rows >= 4 * kLeast) {
        row_parts *= 2;
      } else if (cols >= 2 * k.gemm->panel && cols >= 2 * kLeast) {
        col_parts *= 2;
      } else {
        break;
      }
    }
    // A single product in as many equal parts as there are threads to take them.
    while (products.size() == 1 && row_parts * col_parts % threads != 0 &&
           p.dw.rows / row_parts >= 2 * kLeast)
      ++row_parts;
    int64_t row_step = ceil_div(ceil_div(p.dw.rows, row_parts), 6) * 6;
    int64_t col_step = ceil_div(ceil_div(p.dw.cols, col_parts), k.gemm->panel) * k.gemm->panel;
    for (int64_t r = 0; r < p.dw.rows; r += row_step) {
      for (int64_t c = 0; c < p.dw.cols; c += col_step) {
        tiles.push_back(
            {&p, r, std::min(row_step, p.dw.rows - r), c, std::min(col_step, p.dw.cols - c)});
      }
    }
  }
  std::stable_sort(tiles.begin(), tiles.end(),
                   [](const Tile& a, const Tile& b) { return a.work() > b.work(); });
  return tiles;
}

// Columns of a block of rows as E4M3 values with a scale per column, the contraction being over the
// rows.
Tensor fp8_columns(const Kernels& k, const GemmOperands& ops, const Tensor& x, float* scale) {
  DType element = element_type(k, ops);
  Tensor codes(thread_scratch(Scratch::kCodes, x.size() * info(element).bytes), element, x.rows,
               x.cols);
  ops.fp8_columns({x.data, x.dtype == DType::kBF16, x.stride, x.rows, x.cols, codes.data,
                   codes.stride, scale, 1});
  return codes;
}

// Panels are written side by side, so their distance must not be a multiple of the L1 cache's 4 KB.
int64_t panel_bytes(int64_t steps, int width) { return ceil_div(steps * width * 4, 64) * 64 + 64; }

PackBlock pack_block(const Tensor& x, void* dst, int width, int64_t steps) {
  PackBlock p{};
  p.src = x.data;
  p.src_bf16 = x.dtype == DType::kBF16;
  p.src_stride = x.stride;
  p.k = x.rows;
  p.n = x.cols;
  p.dst = dst;
  p.panel_bytes = panel_bytes(steps, width);
  p.width = width;
  return p;
}

// One tile of dw (or of dw and dw2), block after block of rows: both operands are packed (two rows
// side by side for bf16). dy's panels of kTransposedWidth are the left operand one by one, x's stay
// in L2 for all of them.
void transposed_tile(const Kernels& k, const GemmOperands& ops, const Tile& t, bool fp8) {
  const TransposedProduct& p = *t.product;
  int64_t depth = is_pairs(k, ops) ? 2 : 1, block = fp8 ? kFp8Block : 256 * depth,
          most_steps = block / depth;
  int panel = k.gemm->panel;
  auto* a = thread_scratch<uint8_t>(
      Scratch::kA, ceil_div(t.rows, kTransposedWidth) * panel_bytes(most_steps, kTransposedWidth));
  auto* b = thread_scratch<uint8_t>(Scratch::kB,
                                    ceil_div(t.cols, panel) * panel_bytes(most_steps, panel));
  float* row_scale = fp8 ? thread_scratch<float>(Scratch::kScales, t.rows + t.cols) : nullptr;
  float* col_scale = fp8 ? row_scale + t.rows : nullptr;
  for (int64_t begin = 0; begin < p.x.rows; begin += block) {
    int64_t n = std::min(block, p.x.rows - begin), steps = ceil_div(n, depth);
    Tensor x = p.x.row_range(begin, n).col_range(t.col, t.cols);
    if (fp8) x = fp8_columns(k, ops, x, col_scale);
    PackBlock pack_b = pack_block(x, b, panel, steps);
    ops.pack_k_major(pack_b);
    for (auto [all_dy, all_dw] : {std::pair(p.dy, p.dw), std::pair(p.dy2, p.dw2)}) {
      if (all_dw.empty()) continue;
      Tensor dy = all_dy.row_range(begin, n).col_range(t.row, t.rows),
             dw = all_dw.row_range(t.row, t.rows).col_range(t.col, t.cols);
      if (fp8) dy = fp8_columns(k, ops, dy, row_scale);
      PackBlock pack_a = pack_block(dy, a, kTransposedWidth, steps);
      ops.pack_k_major(pack_a);
      for (int64_t r = 0; r < t.rows; r += kTransposedWidth) {
        GemmBlock g{};
        g.a = a + r / kTransposedWidth * pack_a.panel_bytes;
        g.a_row = 4;
        g.a_step = kTransposedWidth * 4;
        g.b = b;
        g.b_panel = pack_b.panel_bytes;
        g.m = std::min<int64_t>(kTransposedWidth, t.rows - r);
        g.n = t.cols;
        g.steps = steps;
        g.row_scale = fp8 ? row_scale + r : nullptr;
        g.row_scale_stride = 1;
        g.col_scale = col_scale;
        Tensor to = dw.row_range(r, g.m);
        set_result(g, to, begin == 0 ? p.accum : Accum::kSet);
        if (begin > 0) {  // goes on where the last block stopped
          g.init = to.row<float>(0);
          g.init_stride = to.stride;
        }
        ops.multiply(g);
      }
    }
  }
}

}  // namespace

Tensor left_operand(const Kernels& k, const GemmOperands& ops, const Tensor& x) {
  if (x.dtype == element_type(k, ops)) return x;
  Tensor wide(thread_scratch<float>(Scratch::kA, x.size()), DType::kF32, x.rows, x.cols);
  for (int64_t r = 0; r < x.rows; ++r)
    k.gemm->widen(&x.row<bf16>(r)->bits, wide.row<float>(r), x.cols);
  return wide;
}

GemmBlock left_block(const Tensor& x, int64_t depth) {
  GemmBlock g{};
  bool pairs = x.dtype == DType::kBF16;
  g.a = x.data;
  g.a_row = x.stride * info(x.dtype).bytes;
  g.a_step = 4;
  g.m = x.rows;
  g.steps = pairs ? depth / 2 : depth;
  g.half_step = pairs && depth % 2 != 0;
  return g;
}

void set_result(GemmBlock& g, const Tensor& c, Accum accum) {
  g.c = c.data;
  g.c_stride = c.stride;
  bool add = accum == Accum::kAdd;
  g.out = c.dtype == DType::kF32 ? (add ? GemmOut::kF32Add : GemmOut::kF32)
                                 : (add ? GemmOut::kBf16Add : GemmOut::kBf16);
}

std::span<const int32_t> groups(const Tensor& offsets, int64_t experts, int64_t rows) {
  if (offsets.empty()) {
    CHECK(experts == 1);
    return {};
  }
  CHECK(offsets.cols == experts + 1);
  const int32_t* o = offsets.row<int32_t>(0);
  CHECK(o[experts] <= rows);
  return {o, static_cast<size_t>(experts + 1)};
}

void multiply_rows(const Kernels& k, const GemmOperands& ops, const RowProduct& p) {
  CHECK(p.x.cols == p.b->k);
  CHECK(p.y.cols == p.b->n);
  CHECK(p.y.rows == p.x.rows);
  CHECK(p.y.dtype == DType::kF32 || p.y.dtype == DType::kBF16);
  std::vector<RowItem> items = row_items(k, {.rows = p.x.rows,
                                             .depth = p.b->k,
                                             .cols = p.b->n,
                                             .element_bytes = is_pairs(k, ops) ? 2 : 4,
                                             .offsets = p.offsets,
                                             .part = depth_part(*p.b, is_pairs(k, ops))});
  auto item = [&](size_t i) {
    const RowItem &it = items[i], *after = item_after(items, i);
    RightColumns right{*p.b, it.expert, it.col, p.bias ? p.bias + it.col : nullptr};
    if (after) right.next = RightColumns{*p.b, after->expert, after->col}.panels(k);
    multiply_left(k, ops, left_rows(k, ops, p.x.row_range(it.row, it.rows), p.fp8), right,
                  p.y.row_range(it.row, it.rows).col_range(it.col, it.cols), p.accum);
  };
  run_items(items.size(), p.x.rows * p.b->k * p.b->n * 2, item, order_of(items));
}

void multiply_transposed(const Kernels& k, const GemmOperands& ops,
                         std::span<const TransposedProduct> products, bool fp8) {
  for (const TransposedProduct& p : products) {
    CHECK(p.dy.rows == p.x.rows);
    CHECK(p.dw.rows == p.dy.cols);
    CHECK(p.dw.cols == p.x.cols);
    CHECK(p.dw.dtype == DType::kF32);
    CHECK(p.dw2.empty() || (p.dy2.rows == p.dy.rows && p.dy2.cols == p.dy.cols &&
                            p.dw2.rows == p.dw.rows && p.dw2.cols == p.dw.cols));
    for (const Tensor& dw : {p.dw, p.dw2}) {
      if (dw.empty() || p.x.rows > 0 || p.accum == Accum::kAdd) continue;
      for (int64_t r = 0; r < dw.rows; ++r) std::fill_n(dw.row<float>(r), dw.cols, 0.0f);
    }
  }
  std::vector<Tile> tiles = tiles_of(k, products);
  int64_t flops = 0;
  for (const Tile& t : tiles) flops += 2 * t.work();
  run_items(tiles.size(), flops, [&](size_t i) { transposed_tile(k, ops, tiles[i], fp8); });
}

}  // namespace wels
