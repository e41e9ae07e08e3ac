// Loader: the sequence of training batches as a pure function of (shard, seed, step). No state, so
// a resumed run sees exactly what it would have seen.
//
// Each epoch shuffles the documents, joins them, and cuts the stream into windows of T + 1 tokens
// that overlap by one (the last target of one is the first input of the next), from an offset of
// its own, and takes the windows in a shuffled order.
#pragma once
#include <cstdint>
#include <vector>

#include "data/shards.h"
#include "tensor/batch.h"

namespace wels {

struct LoaderConfig {
  int64_t sequence_length = 256;  // T
  uint64_t seed = 1;
  // false: a window is one sequence whatever documents it holds (V3 §4.1). true: documents do not
  // see each other (V4), and none predicts how the next begins.
  bool document_mask = false;
};

class Loader {
 public:
  Loader(const TokenShard& shard,
         LoaderConfig config);  // throws Error where the shard is shorter than one window, or a
                                // mask is asked for and nothing ends its documents
  int64_t sequences_per_epoch() const { return windows_; }
  // Appends sequence number i of the whole run (i counts through the epochs) to batch and targets:
  // T rows; the target of a row is the stream's next token, with the mask -1 behind a document's
  // last. One thread at a time: it remembers the epoch's order. Costs microseconds (the tokens are
  // a memory map), so nothing is fetched ahead on another thread.
  void sequence(int64_t i, Batch& batch, std::vector<int32_t>& targets);

 private:
  void enter_epoch(int64_t epoch);
  const TokenShard& shard_;
  LoaderConfig config_;
  int64_t windows_;
  int64_t epoch_ = -1, offset_ = 0;
  std::vector<int64_t> order_;   // documents in this epoch's order
  std::vector<int64_t> starts_;  // where each begins in the epoch's stream
};

// A bijection of [0, n) that depends on the key: a Feistel network on the next even number of bits,
// walked until inside.
int64_t permute(int64_t i, int64_t n, uint64_t key);

// The validation windows: unshuffled, T inputs each, covering the shard; `count` of them spread
// evenly (0: all).
std::vector<int64_t> validation_windows(const TokenShard& shard, int64_t sequence_length,
                                        int64_t count);
// Window starting at token `begin` of the shard's own order: up to T inputs. document_mask: as in
// LoaderConfig.
void append_window(const TokenShard& shard, int64_t begin, int64_t sequence_length, Batch& batch,
                   std::vector<int32_t>& targets, bool document_mask = false);

}  // namespace wels
