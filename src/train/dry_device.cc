#include "train/dry_device.h"

#include <algorithm>
#include <cstring>

namespace wels {

void* DryDevice::allocate(int64_t bytes) {
  held_ += bytes;
  next_address_ += (bytes + 63) / 64 * 64;
  return reinterpret_cast<void*>(next_address_);
}

void DryDevice::download(const Tensor& t, void* host) {
  std::memset(host, 0, static_cast<size_t>(t.bytes()));
}

void DryDevice::forward(const Tensor& x, const Weight& w, bool fp8) {
  product(w, x.dtype, fp8, PackUse::kForward);
  if (is_quantised(w.value[0].dtype) && x.size() > largest_.quant_rows * largest_.quant_cols) {
    largest_.quant_rows = x.rows;
    largest_.quant_cols = x.cols;
  }
}

void DryDevice::product(const Weight& w, DType dtype, bool fp8, PackUse use) {
  if (use == PackUse::kDecoded && !is_quantised(w.value[0].dtype)) use = PackUse::kForward;
  largest_.fp8 = largest_.fp8 || fp8;
  largest_.widest = std::max({largest_.widest, w.rows, w.cols});
  DType operand = w.full_precision ? DType::kF32 : dtype;
  if (!seen_.emplace(&w, operand, fp8, use).second) return;
  int64_t bytes = of_.packed_bytes(w, operand, fp8, use);
  packed_ += bytes;
  if (w.experts() > 1 && use == PackUse::kForward) stacks_.push_back({bytes, w.experts()});
}

void DryDevice::head_gradient(const Tensor& h, const Weight& head) {
  product(head, h.dtype, false, PackUse::kDecoded);
  product(head, h.dtype, false, PackUse::kBackward);
  largest_.dtype = h.dtype;
  largest_.head_rows = std::max(largest_.head_rows, h.rows);
  largest_.head_cols = std::max(largest_.head_cols, h.cols);
  largest_.head_vocab = std::max(largest_.head_vocab, head.rows);
}

void DryDevice::attend_backward(const Tensor& q, const Tensor&, const Tensor&, const Tensor&,
                                std::span<const AttendSegment> segments, const AttendParams& p,
                                const Tensor&, const Tensor&, const Tensor&, Tensor, Tensor, Tensor,
                                Tensor) {
  largest_.attend = p;
  largest_.attend_rows = std::max(largest_.attend_rows, q.rows);
  largest_.attend_segments = static_cast<int64_t>(segments.size());
  for (const AttendSegment& s : segments)
    largest_.longest_segment = std::max(largest_.longest_segment, s.k_rows);
}

}  // namespace wels
