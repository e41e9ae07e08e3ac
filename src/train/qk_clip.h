// QK-Clip for MLA (Kimi K2, arXiv 2507.20534 §2.1): Muon's large updates let single heads'
// attention scores grow without bound. After a step, a head whose largest score S_max exceeds tau
// gets its query and key weights scaled so that its scores are those of before times γ = tau /
// S_max: W_UQ and W_UK by sqrt(γ) each, W_QR by γ; W_KR is shared by all heads and stays. (Norms of
// q and k, the usual remedy, are no way out: absorbed MLA never has the keys.)
#pragma once
#include <span>
#include <vector>

#include "backend/device.h"
#include "model/model.h"

namespace wels {

// S_max of every head: the largest q·k·scale over all causal pairs of `batch` (no past), [blocks +
// MTP modules][heads]. One forward pass without a tape plus the scores of one head at a time.
// dtype: of the activations. MLA models only. -infinity where a module had no row.
std::vector<std::vector<double>> max_attention_scores(Device& dev, Pool& pool, Model& model,
                                                      const Batch& batch, DType dtype);

// Scales the weights of every head with S_max > tau; s_max as above. Returns how many heads that
// were.
int64_t qk_clip(Device& dev, Model& model, std::span<const std::vector<double>> s_max, double tau);

}  // namespace wels
