// What the files of multi-head latent attention share: mla.cc, and mla_cached.cc for the KV cache.
#pragma once
#include "model/block.h"

namespace wels {

// What attention is made from, of n new rows.
struct MlaInput {
  Var q;       // [n, h·(dn + dr)]: per head q^C, then q^R, turned
  Var latent;  // [n, r]: c
  Var key;     // [n, dr]: k^R, turned
};

// Of ordinary attention over keys and values in one row: per head k^C (dn), then v (dv).
AttendParams expanded_params(const ModelConfig& c, double scale);

// Puts the new rows into the cache and attends to all that it has of their sequences. [n, h·dv]
Var attend_with_cache(Ctx& ctx, AttentionWeights& w, const MlaInput& in, const BlockContext& b);

}  // namespace wels
