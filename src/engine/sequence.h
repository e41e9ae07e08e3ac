// The engine's own: a request on its way, and its part in a step.
#pragma once
#include "engine/engine.h"

namespace wels {

struct Engine::Sequence {
  int64_t id = 0;
  GenerateRequest request;
  GenerateResult result;
  std::vector<int32_t> history;  // prompt and answer
  int64_t prompt = 0;            // tokens of it
  bool done = false, cancelled = false;
  bool counted = false;  // in the timing
  // While it runs:
  int32_t kv = -1;
  PrefixCache::Path path;
  int64_t exact = 0;                 // rows from the beginning that are exact (prefix_cache.h)
  MlaForm form = MlaForm::kByCost;   // of its prompt's rows
  int64_t seen = -1;                 // rows that the MTP module has seen; -1: it looks away
  int64_t idle_drafts = 0;           // steps in a row in which drafting did not pay
  std::vector<int32_t> drafts;       // for the next step
  std::vector<DiskCache::Key> keys;  // of its pages so far, behind the root's
  NgramIndex ngrams;

  int64_t answered() const { return static_cast<int64_t>(history.size()) - prompt; }
  std::span<const int32_t> answer() const {
    return std::span(history).subspan(static_cast<size_t>(prompt));
  }
};

// Rows of a sequence in a step.
struct Engine::Feed {
  Sequence* s;
  int64_t past, rows;  // of which the last s->drafts.size() are drafts
  bool samples;        // its history is in the cache then
  int64_t row_begin = 0;
  int64_t accepted = 0;  // drafts
  bool refused = false;  // a draft: what follows is void
  bool decodes() const { return past >= s->prompt && samples; }
};

// A sequence for which the MTP module drafts: its row in the module's last result.
struct Engine::Drafting {
  Sequence* s;
  int32_t row;
  int64_t wanted;
};

}  // namespace wels
