// The parts of a block. Forward code only: the ops of nn/ know their gradients.
#pragma once
#include "model/model.h"

namespace wels {

// What all layers of one forward pass share.
struct BlockContext {
  const ModelConfig& cfg;
  const ForwardOptions& options;
  const Batch& batch;
  Positions pos;
  std::vector<AttendSegment> segments;  // the batch's rows among themselves
  Var places;  // i32 [1, n]: rows' places in the KV cache; empty without one
  int64_t layer = 0;
  ForwardRecord* record = nullptr;
  double scale = 1;  // softmax scale

  void observe(const std::string& name, const Var& v) const {
    if (options.observe) options.observe(name, v);
  }
};

std::vector<AttendSegment> own_segments(const Batch& batch);
// A run of segments after what the cache has of their sequences; queries count from the run's
// first.
std::vector<CachedSegment> cached_segments(std::span<const Segment> run, const KvCache& kv);

// The cheaper form of MLA's attention over the cache, for `new_rows` tokens after `past_rows`:
// mla_cached.cc.
MlaForm cheaper_mla_form(const ModelConfig& c, int64_t past_rows, int64_t new_rows);

Var mla(Ctx& ctx, AttentionWeights& w, const Var& x, const BlockContext& b);  // mla.cc
Var gqa(Ctx& ctx, AttentionWeights& w, const Var& x, const BlockContext& b);  // gqa.cc
Var mlp(Ctx& ctx, MlpWeights& w, const Var& x);                               // moe.cc
Var moe(Ctx& ctx, MoeWeights& w, const Var& x, const BlockContext& b);        // moe.cc

}  // namespace wels
