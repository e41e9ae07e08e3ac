// Batch: what a forward pass gets. Ragged: the rows of all sequences one after another. A segment
// is a run of rows that continues one sequence which already has `past` tokens in the KV cache.
// Packed training documents (past = 0), prefill chunks and single decode rows are all segments.
#pragma once
#include <cstdint>
#include <vector>

namespace wels {

// How MLA attends to cached rows: by cost, or always in one form. The forms round differently, so a
// row whose bits must not depend on how its sequence was cut into segments is given its form.
enum class MlaForm { kByCost, kExpanded, kAbsorbed };

struct Segment {
  int64_t row_begin = 0;  // first row of the batch that belongs to it
  int64_t rows = 0;       // how many (>= 1)
  int64_t past = 0;       // tokens of this sequence that are in the KV cache already
  int32_t sequence = 0;   // KV cache sequence (unused without a cache)
  MlaForm mla = MlaForm::kByCost;
};

struct Batch {
  std::vector<int32_t> tokens;  // [n]
  // [n] position of each row in its sequence: past + index in the segment.
  std::vector<int32_t> pos;
  std::vector<Segment> segments;  // in order, covering all rows
  // [n, MoE blocks, k]: experts that rows were given elsewhere and keep (the sampler's choice in
  // training, V3.2's "keep routing"); a first one of -1: the row's router chooses. Empty: all do.
  std::vector<int16_t> experts = {};
  int64_t rows() const { return static_cast<int64_t>(tokens.size()); }

  // Appends a segment of the given tokens.
  template <class Range>
  void append(const Range& ids, int64_t past = 0, int32_t sequence = 0) {
    Segment s{rows(), 0, past, sequence};
    for (auto id : ids) {
      tokens.push_back(static_cast<int32_t>(id));
      pos.push_back(static_cast<int32_t>(past + s.rows++));
    }
    segments.push_back(s);
  }
};

}  // namespace wels
