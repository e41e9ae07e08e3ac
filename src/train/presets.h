// Shapes and settings by one dial. Presets are V3's architecture scaled down (shared/recipe 5.5
// names their sizes): heads of V3's kind but narrow (dn 32, dr 16, dv 32), h = d/32, rq = d/2, r =
// d/4, dense FFN 3d, first block dense, sigmoid router with selection bias, one shared expert, one
// MTP module.
#pragma once
#include <string>

#include "formats/model_config.h"

namespace wels {

struct PresetSettings {
  ModelConfig model;         // vocab_size is the preset's own; the tokenizer's replaces it
  double learning_rate = 0;  // peak
  int64_t batch_tokens = 0;  // per optimiser step
  int64_t sequence_length = 0;
  double tokens_per_active_parameter =
      20;  // horizon: about Chinchilla's ratio on active parameters
};

// "nano", "micro", "mini", "small", "base". Throws Error for others.
PresetSettings preset(const std::string& name);

// The dial: blocks N (2..32). d = 32·N up to N = 8, then 32·N + 64·(N - 8)/2 rounded to 64 (so that
// 10 → 384, 12 → 512 as the presets), experts 8 (N < 6), 16 (< 10), 32 (< 12), 64; chosen 2, 2, 4,
// 6; expert width ¾d rounded down to 64 (at most 256). Peak learning rate 2e-3·sqrt(128/d), batch
// 8k tokens · d/128 rounded to 4k.
PresetSettings preset_of_depth(int depth);

// Makes cfg dense with about the same active operations: every FFN as wide as the shared and chosen
// experts together (averaged over the blocks, a multiple of 16). A dense cfg stays as it is.
void make_dense(ModelConfig& cfg);

}  // namespace wels
