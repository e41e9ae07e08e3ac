#include "backend/cpu/product.h"

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "base/threads.h"
#include "tensor/fp8.h"

namespace wels {
namespace {

constexpr int64_t kSerialFlops = 400'000;  // below it a parallel region costs more than it gains

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct RowItem {
  int64_t expert, row, rows, col, cols;
};

// Row chunks whose part of x fits in half of L2, all of about one size; columns are split too where
// there are few rows.
std::vector<RowItem> row_items(const Kernels& k, const RowProduct& p, int64_t element_bytes) {
  constexpr int64_t kUnit = 24, kMost = 192;  // 24: a multiple of every micro-kernel's rows
  const int32_t whole[2] = {0, static_cast<int32_t>(p.x.rows)};
  std::span<const int32_t> offsets =
      p.offsets.empty() ? std::span<const int32_t>(whole) : p.offsets;
  int64_t fit =
      std::clamp<int64_t>((256 << 10) / (p.b->k * element_bytes) / kUnit * kUnit, kUnit, kMost);
  int64_t chunks = 0;
  for (size_t e = 0; e + 1 < offsets.size(); ++e)
    chunks += ceil_div(offsets[e + 1] - offsets[e], fit);
  bool serial = p.x.rows * p.b->k * p.b->n * 2 < kSerialFlops || thread_count() == 1;
  int64_t panels = ceil_div(p.b->n, k.gemm->panel);
  int64_t splits = 1;
  if (!serial && chunks > 0)
    splits = std::clamp<int64_t>(ceil_div(4 * thread_count(), chunks), 1, panels);
  int64_t split_cols = ceil_div(panels, splits) * k.gemm->panel;
  std::vector<RowItem> items;
  for (size_t e = 0; e + 1 < offsets.size(); ++e) {
    int64_t begin = offsets[e], rows = offsets[e + 1] - begin, parts = ceil_div(rows, fit);
    if (rows == 0) continue;
    int64_t step = ceil_div(ceil_div(rows, parts), kUnit) * kUnit;
    for (int64_t r = 0; r < rows; r += step) {
      for (int64_t c = 0; c < p.b->n; c += split_cols) {
        items.push_back({static_cast<int64_t>(e), begin + r, std::min(step, rows - r), c,
                         std::min(split_cols, p.b->n - c)});
      }
    }
  }
  // Large ones first: the last items to finish are short.
  std::stable_sort(items.begin(), items.end(), [](const RowItem& a, const RowItem& b) {
    return a.rows * a.cols > b.rows * b.cols;
  });
  return items;
}

void plain_item(const Kernels& k, const GemmOperands& ops, const RowProduct& p, const RowItem& it) {
  GemmBlock g = left_block(left_operand(k, ops, p.x.row_range(it.row, it.rows)), p.b->k);
  g.b = p.b->expert(it.expert) + it.col / k.gemm->panel * p.b->panel_bytes;
  g.b_panel = p.b->panel_bytes;
  g.n = it.cols;
  g.bias = p.bias ? p.bias + it.col : nullptr;
  set_result(g, p.y.row_range(it.row, it.rows).col_range(it.col, it.cols), p.accum);
  ops.multiply(g);
}

// x rounded to E4M3 with a scale per row and 128 columns; each 128 of k is a product of its own,
// scaled and added in f32.
void fp8_item(const Kernels& k, const GemmOperands& ops, const RowProduct& p, const RowItem& it) {
  Tensor x = p.x.row_range(it.row, it.rows), y = p.y.row_range(it.row, it.rows);
  int64_t blocks = ceil_div(p.b->k, kFp8Block), stride = blocks * kFp8Block;
  DType element = element_type(k, ops);
  Tensor codes(thread_scratch(Scratch::kCodes, it.rows * stride * info(element).bytes), element,
               it.rows, p.b->k, stride);
  float* scales = thread_scratch<float>(Scratch::kScales, it.rows * blocks);
  ops.fp8_rows({x.data, x.dtype == DType::kBF16, x.stride, x.rows, x.cols, codes.data, stride,
                scales, blocks});

  int64_t group = std::max<int64_t>(256, k.gemm->panel);  // columns whose f32 sums stay in L2
  float* sums = thread_scratch<float>(Scratch::kC, it.rows * group);
  for (int64_t c = it.col; c < it.col + it.cols; c += group) {
    int64_t n = std::min(group, it.col + it.cols - c);
    for (int64_t b = 0; b < blocks; ++b) {
      int64_t begin = b * kFp8Block;
      Tensor part = codes.col_range(begin, std::min<int64_t>(kFp8Block, p.b->k - begin));
      GemmBlock g = left_block(part, part.cols);
      g.b = p.b->expert(it.expert) + c / k.gemm->panel * p.b->panel_bytes +
            begin * info(element).bytes / 4 * k.gemm->panel * 4;
      g.b_panel = p.b->panel_bytes;
      g.n = n;
      g.row_scale = scales + b;
      g.row_scale_stride = blocks;
      g.col_scale = p.b->scale(it.expert, b) + c;
      g.init = b > 0 ? sums : nullptr;
      g.init_stride = group;
      if (b + 1 < blocks) {
        set_result(g, Tensor(sums, DType::kF32, it.rows, n, group), Accum::kSet);
      } else {
        g.bias = p.bias ? p.bias + c : nullptr;
        set_result(g, y.col_range(c, n), p.accum);
      }
      ops.multiply(g);
    }
  }
}

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

// One tile of dw, block after block of rows: both operands are packed (two rows side by side for
// bf16). dy's panels of kTransposedWidth are the left operand one by one, x's stay in L2 for all of
// them.
void transposed_tile(const Kernels& k, const GemmOperands& ops, const Tile& t, bool fp8) {
  const TransposedProduct& p = *t.product;
  Tensor dw = p.dw.row_range(t.row, t.rows).col_range(t.col, t.cols);
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
    Tensor dy = p.dy.row_range(begin, n).col_range(t.row, t.rows),
           x = p.x.row_range(begin, n).col_range(t.col, t.cols);
    if (fp8) dy = fp8_columns(k, ops, dy, row_scale);
    PackBlock pack_a = pack_block(dy, a, kTransposedWidth, steps);
    ops.pack_k_major(pack_a);
    if (fp8) x = fp8_columns(k, ops, x, col_scale);
    PackBlock pack_b = pack_block(x, b, panel, steps);
    ops.pack_k_major(pack_b);
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

void multiply_rows(const Kernels& k, const GemmOperands& ops, const RowProduct& p) {
  CHECK(p.x.cols == p.b->k);
  CHECK(p.y.cols == p.b->n);
  CHECK(p.y.rows == p.x.rows);
  CHECK(p.y.dtype == DType::kF32 || p.y.dtype == DType::kBF16);
  std::vector<RowItem> items = row_items(k, p, is_pairs(k, ops) ? 2 : 4);
  auto run = [&](int64_t i) {
    p.fp8 ? fp8_item(k, ops, p, items[static_cast<size_t>(i)])
          : plain_item(k, ops, p, items[static_cast<size_t>(i)]);
  };
  if (p.x.rows * p.b->k * p.b->n * 2 < kSerialFlops) {
    for (size_t i = 0; i < items.size(); ++i) run(static_cast<int64_t>(i));
  } else {
    parallel_tasks(static_cast<int64_t>(items.size()), run);
  }
}

void multiply_transposed(const Kernels& k, const GemmOperands& ops,
                         std::span<const TransposedProduct> products, bool fp8) {
  for (const TransposedProduct& p : products) {
    CHECK(p.dy.rows == p.x.rows);
    CHECK(p.dw.rows == p.dy.cols);
    CHECK(p.dw.cols == p.x.cols);
    CHECK(p.dw.dtype == DType::kF32);
    if (p.x.rows == 0 && p.accum == Accum::kSet) {
      for (int64_t r = 0; r < p.dw.rows; ++r) std::fill_n(p.dw.row<float>(r), p.dw.cols, 0.0f);
    }
  }
  std::vector<Tile> tiles = tiles_of(k, products);
  int64_t flops = 0;
  for (const Tile& t : tiles) flops += 2 * t.work();
  auto run = [&](int64_t i) { transposed_tile(k, ops, tiles[static_cast<size_t>(i)], fp8); };
  if (flops < kSerialFlops) {
    for (size_t i = 0; i < tiles.size(); ++i) run(static_cast<int64_t>(i));
  } else {
    parallel_tasks(static_cast<int64_t>(tiles.size()), run);
  }
}

}  // namespace wels
