#include "backend/cpu/weight_pack.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>

#include "backend/cpu/quant_type.h"
#include "base/error.h"
#include "base/mapped_pages.h"
#include "base/threads.h"
#include "tensor/float_formats.h"
#include "tensor/fp8.h"
#include "tensor/pool.h"
#include "tensor/quant.h"

namespace wels {
namespace {

constexpr int64_t kRowBlock =
    128;  // rows of w packed by one work item; a multiple of every panel and of the FP8 block

struct WeightCache {
  const Kernels* kernels;  // packs depend on the instruction set
  std::array<PackedWeight, 8> packs;
  PackedWeight narrow;
  PackedWeight quant;
};

WeightCache& cache_of(const Kernels& kernels, const Weight& w) {
  auto* cache = static_cast<WeightCache*>(w.cache.get());
  if (!cache || cache->kernels != &kernels) {
    auto fresh = std::make_shared<WeightCache>();
    fresh->kernels = &kernels;
    cache = fresh.get();
    w.cache = std::move(fresh);
  }
  return *cache;
}

// How the products' pack keeps the values.
PanelType panel_type(const Weight& w, bool pairs, bool fp8) {
  if (fp8 || w.value.empty()) return PanelType::kUnits;
  switch (w.value[0].dtype) {
    case DType::kF8E4M3:
      return PanelType::kE4m3;
    case DType::kBF16:
      return pairs ? PanelType::kUnits : PanelType::kBf16;
    case DType::kF16:
      return pairs ? PanelType::kUnits : PanelType::kF16;
    default:
      return PanelType::kUnits;
  }
}

std::shared_ptr<void> allocate(int64_t bytes) {
  return {allocate_host(bytes), [bytes](void* p) { free_host(p, bytes); }};
}

const std::array<float, 256>& fp8_values() {
  static const std::array<float, 256> table = [] {
    std::array<float, 256> t;
    for (int i = 0; i < 256; ++i) t[static_cast<size_t>(i)] = fp8_to_float(static_cast<uint8_t>(i));
    return t;
  }();
  return table;
}

// The pack's shape, without memory.
PackedWeight layout(const Kernels& kernels, const Weight& w, PackDirection direction, bool pairs) {
  int64_t panel = kernels.gemm->panel, depth = pairs ? 2 : 1;
  PackedWeight out;
  out.k = direction == PackDirection::kForward ? w.cols : w.rows;
  out.n = direction == PackDirection::kForward ? w.rows : w.cols;
  out.panel_bytes = (out.k + depth - 1) / depth * panel * 4;
  out.expert_bytes = (out.n + panel - 1) / panel * out.panel_bytes;
  return out;
}

PackedWeight narrow_layout(const Kernels& kernels, const Weight& w, PanelType type) {
  int64_t panel = kernels.gemm->panel;
  PackedWeight out;
  out.k = w.cols;
  out.n = w.rows;
  out.type = type;
  out.panel_bytes = out.k * panel * (type == PanelType::kE4m3 ? 1 : 2);
  out.expert_bytes = (out.n + panel - 1) / panel * out.panel_bytes;
  return out;
}

int64_t scale_bytes(const PackedWeight& p, int64_t experts) {
  return experts * ((p.k + kFp8Block - 1) / kFp8Block) * p.n * 4;
}

// The experts of `out` whose packs are to be made now, with memory for them.
std::vector<int32_t> to_pack(const Weight& w, PackedWeight& out, ExpertUse* use) {
  if (use && use->limited(w.experts())) {
    if (!out.slots || out.version != w.version) {
      out.slots = std::make_shared<ExpertSlots>(w.experts());
      out.memory.reset();
      out.version = w.version;
    }
    return use->take(out.slots, out.expert_bytes);
  }
  if (out.memory && !out.slots && out.version == w.version) return {};
  if (!out.memory) out.memory = allocate(out.expert_bytes * w.experts());
  out.slots.reset();
  out.version = w.version;
  std::vector<int32_t> all(static_cast<size_t>(w.experts()));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

// pack(expert, block) for `blocks` blocks of each, in parallel; then the weight's own bytes are not
// needed any more.
template <class Pack>
void pack_experts(const Weight& w, PackedWeight& out, const std::vector<int32_t>& experts,
                  int64_t blocks, int64_t block_rows, Pack&& pack) {
  int64_t n = static_cast<int64_t>(experts.size()) * blocks;
  try {
    parallel_for(n, std::max<int64_t>(1, 65536 / (block_rows * w.cols)),
                 [&](int64_t i, int64_t end) {
                   for (; i < end; ++i) pack(experts[static_cast<size_t>(i / blocks)], i % blocks);
                 });
  } catch (...) {  // damaged weights: nothing of it may be used
    out.memory.reset();
    out.slots.reset();
    throw;
  }
  for (int32_t e : experts) {
    const Tensor& value = w.value[static_cast<size_t>(e)];
    if (value.contiguous()) drop_mapped_pages(value.data, static_cast<size_t>(value.bytes()));
  }
}

struct Packing {
  const Kernels& kernels;
  const Weight& w;
  PackDirection direction;
  bool pairs, fp8;
  PackedWeight& out;

  // Rows [begin, begin + n) of expert e.
  void pack(int64_t e, int64_t begin, int64_t n) const {
    const GemmKernels& g = *kernels.gemm;
    const Tensor& value = w.value[static_cast<size_t>(e)];
    Tensor rows;
    if (value.dtype == DType::kF32 || (value.dtype == DType::kBF16 && !fp8)) {
      rows = value.row_range(begin, n);
    } else {
      rows = weight_rows_f32(w, e, begin, n, thread_scratch<float>(Scratch::kA, n * w.cols));
    }
    if (fp8) rows = round_blocks(rows, e, begin);
    PackBlock p{};
    p.src = rows.data;
    p.src_bf16 = rows.dtype == DType::kBF16;
    p.src_stride = rows.stride;
    p.panel_bytes = out.panel_bytes;
    p.width = g.panel;
    const GemmOperands& ops = pairs ? *g.bf16 : *g.f32;
    uint8_t* to = const_cast<uint8_t*>(out.expert(e));
    if (direction == PackDirection::kForward) {
      p.k = w.cols;
      p.n = n;
      p.dst = to + begin / g.panel * out.panel_bytes;
      ops.pack_n_major(p);
    } else {
      p.k = n;
      p.n = w.cols;
      p.dst = to + begin / (pairs ? 2 : 1) * g.panel * 4;
      ops.pack_k_major(p);
    }
  }

  // E4M3 values of the rows, which are one row of 128 × 128 blocks; their scales go to out.
  Tensor round_blocks(const Tensor& rows, int64_t e, int64_t begin) const {
    Tensor codes(thread_scratch<float>(Scratch::kB, rows.size()), DType::kF32, rows.rows,
                 rows.cols);
    float* scales =
        static_cast<float*>(out.scales.get()) + e * ((out.k + kFp8Block - 1) / kFp8Block) * out.n;
    for (int64_t c = 0; c < rows.cols; c += kFp8Block) {
      Tensor from = rows.col_range(c, std::min<int64_t>(kFp8Block, rows.cols - c)),
             to = codes.col_range(c, from.cols);
      float scale = 0;
      kernels.gemm->fp8_block(
          {from.data, false, from.stride, from.rows, from.cols, to.data, to.stride, &scale, 1});
      if (direction == PackDirection::kForward) {
        std::fill_n(scales + c / kFp8Block * out.n + begin, from.rows, scale);
      } else {
        std::fill_n(scales + begin / kFp8Block * out.n + c, from.cols, scale);
      }
    }
    return codes;
  }
};

}  // namespace

Tensor weight_rows_f32(const Weight& w, int64_t e, int64_t begin, int64_t n, float* scratch) {
  Tensor from = w.value[static_cast<size_t>(e)].row_range(begin, n);
  if (from.dtype == DType::kF32) return from;
  for (int64_t r = 0; r < n; ++r) {
    float* to = scratch + r * w.cols;
    const uint8_t* row = from.row_raw(r);
    switch (from.dtype) {
      case DType::kBF16:
        for (int64_t c = 0; c < w.cols; ++c)
          to[c] = to_float(reinterpret_cast<const bf16*>(row)[c]);
        break;
      case DType::kF16:
        for (int64_t c = 0; c < w.cols; ++c)
          to[c] = half_to_float(reinterpret_cast<const uint16_t*>(row)[c]);
        break;
      case DType::kF8E4M3: {
        const float* scale = w.scale[static_cast<size_t>(e)].row<float>((begin + r) / kFp8Block);
        for (int64_t c = 0; c < w.cols; ++c) to[c] = fp8_values()[row[c]] * scale[c / kFp8Block];
        break;
      }
      default:
        if (const QuantFormat* format = find_quant_format(from.dtype)) {
          format->decode(row, to, w.cols);
          break;
        }
        throw Error(w.name,
                    "the cpu device has no decoder for weights in " + std::string(name(from.dtype)),
                    "keep it in f32, bf16, f16, f8_e4m3 or a GGUF format");
    }
  }
  return {scratch, DType::kF32, n, w.cols};
}

namespace {

const PackedWeight& packed_weight(const Kernels& kernels, const Weight& w, PackDirection direction,
                                  bool pairs, bool fp8, ExpertUse* use) {
  bool forward = direction == PackDirection::kForward;
  PackedWeight& out =
      cache_of(kernels, w)
          .packs[static_cast<size_t>((forward ? 0 : 4) + (pairs ? 2 : 0) + (fp8 ? 1 : 0))];
  if (!out.memory && !out.slots) {
    out = layout(kernels, w, direction, pairs);
    if (fp8) out.scales = allocate(scale_bytes(out, w.experts()));
  }
  std::vector<int32_t> experts = to_pack(w, out, use);
  Packing job{kernels, w, direction, pairs, fp8, out};
  int64_t blocks = (w.rows + kRowBlock - 1) / kRowBlock;
  pack_experts(w, out, experts, blocks, kRowBlock, [&](int32_t e, int64_t b) {
    job.pack(e, b * kRowBlock, std::min(kRowBlock, w.rows - b * kRowBlock));
  });
  return out;
}

// Eight codes at a time: 0x7f without its sign is NaN, and the only one whose successor has bit 7.
void refuse_nan_codes(const Weight& w, const Tensor& rows) {
  constexpr uint64_t kOnes = 0x0101010101010101;
  uint64_t nan = 0;
  for (int64_t r = 0; r < rows.rows; ++r) {
    const uint8_t* row = rows.row_raw(r);
    for (int64_t c = 0; c < rows.cols; c += 8) {
      uint64_t codes = 0;
      if (c + 8 <= rows.cols) {
        std::memcpy(&codes, row + c, 8);
      } else {
        std::memcpy(&codes, row + c, static_cast<size_t>(rows.cols - c));
      }
      nan |= ((codes & (0x7f * kOnes)) + kOnes) & (0x80 * kOnes);
    }
  }
  if (nan) throw Error(w.name, "holds NaN", "use an undamaged checkpoint");
}

}  // namespace

const PackedWeight& packed_weight(const Kernels& kernels, const Weight& w, PackDirection direction,
                                  bool pairs, bool fp8) {
  return packed_weight(kernels, w, direction, pairs, fp8, nullptr);
}

const PackedWeight& product_weight(const Kernels& kernels, const Weight& w, bool pairs, bool fp8,
                                   ExpertUse* use) {
  PanelType type = panel_type(w, pairs, fp8);
  if (type == PanelType::kUnits)
    return packed_weight(kernels, w, PackDirection::kForward, pairs, fp8, use);
  PackedWeight& out = cache_of(kernels, w).narrow;
  if ((!out.memory && !out.slots) || out.type != type) out = narrow_layout(kernels, w, type);
  if (out.version != w.version || out.block_scales.empty()) out.block_scales = w.scale;
  std::vector<int32_t> experts = to_pack(w, out, use);
  int64_t blocks = (w.rows + kRowBlock - 1) / kRowBlock;
  pack_experts(w, out, experts, blocks, kRowBlock, [&](int32_t e, int64_t b) {
    int64_t begin = b * kRowBlock;
    Tensor rows =
        w.value[static_cast<size_t>(e)].row_range(begin, std::min(kRowBlock, w.rows - begin));
    if (type == PanelType::kE4m3) refuse_nan_codes(w, rows);
    kernels.gemm->pack_narrow(
        rows.data, rows.stride, rows.rows, w.cols, type,
        const_cast<uint8_t*>(out.expert(e)) + begin / kernels.gemm->panel * out.panel_bytes);
  });
  return out;
}

const PackedWeight& quant_packed_weight(const Kernels& kernels, const Weight& w, ExpertUse* use) {
  PackedWeight& out = cache_of(kernels, w).quant;
  int64_t panels = (w.rows + kQuantLanes - 1) / kQuantLanes;
  if (!out.memory && !out.slots) {
    for (const Tensor& value : w.value) CHECK(value.dtype == w.value[0].dtype);
    out.k = w.cols;
    out.n = w.rows;
    out.panel_bytes = quant_panel_bytes(quant_panel(w.value[0].dtype), w.cols);
    out.expert_bytes = panels * out.panel_bytes;
  }
  std::vector<int32_t> experts = to_pack(w, out, use);
  pack_experts(w, out, experts, panels, kQuantLanes, [&](int32_t e, int64_t panel) {
    int64_t row = panel * kQuantLanes;
    const Tensor& value = w.value[static_cast<size_t>(e)];
    kernels.quant->pack[quant_type(value.dtype)](
        {value.row_raw(row), row_bytes(value.dtype, value.stride),
         static_cast<int>(std::min<int64_t>(kQuantLanes, w.rows - row)), w.cols,
         info(value.dtype).bytes, const_cast<uint8_t*>(out.expert(e)) + panel * out.panel_bytes});
  });
  return out;
}

PanelType in_place_type(const Kernels& kernels, const Weight& w, bool pairs) {
  if (pairs || w.cols % kernels.gemm->panel != 0) return PanelType::kUnits;
  DType stored = w.value[0].dtype;
  return stored == DType::kBF16  ? PanelType::kBf16
         : stored == DType::kF16 ? PanelType::kF16
                                 : PanelType::kUnits;
}

int64_t pack_bytes(const Kernels& kernels, const Weight& w, PackDirection direction, bool pairs,
                   bool fp8) {
  PanelType type = panel_type(w, pairs, fp8);
  if (direction == PackDirection::kForward && type != PanelType::kUnits)
    return narrow_layout(kernels, w, type).expert_bytes * w.experts();
  PackedWeight p = layout(kernels, w, direction, pairs);
  return p.expert_bytes * w.experts() + (fp8 ? scale_bytes(p, w.experts()) : 0);
}

void* thread_scratch(Scratch slot, int64_t bytes) {
  struct Buffer {
    void* p = nullptr;
    int64_t bytes = 0;
    ~Buffer() {
      if (p) free_host(p, bytes);
    }
  };
  thread_local std::array<Buffer, static_cast<size_t>(Scratch::kCount)> buffers;
  Buffer& b = buffers[static_cast<size_t>(slot)];
  if (b.bytes < bytes) {
    if (b.p) free_host(b.p, b.bytes);
    b.p = nullptr;
    int64_t size = std::max<int64_t>(bytes, 65536);
    b.p = allocate_host(size);
    b.bytes = size;
  }
  return b.p;
}

}  // namespace wels
