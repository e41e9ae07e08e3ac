#include "data/sample.h"

#include <algorithm>
#include <utility>

#include "data/hash.h"

namespace wels {
namespace {

struct Ranked {
  uint64_t rank;
  std::string text;
  bool operator<(const Ranked& o) const { return rank < o.rank; }  // equal ranks are equal texts
};

}  // namespace

TextSample sample_corpus(const std::vector<std::string>& files, int64_t max_bytes,
                         const Watch& watch) {
  TextSample sample;
  CorpusReader reader(files);
  WatchedStage stage(watch, "sampling");
  std::vector<Ranked> kept;     // a heap: the highest rank in front
  uint64_t limit = UINT64_MAX;  // ranks from here on are out: one of them did not fit
  for (Piece piece; reader.next(piece);) {
    uint64_t rank = hash_bytes(piece.text);
    if (rank < limit) {
      sample.bytes += static_cast<int64_t>(piece.text.size());
      kept.push_back({rank, std::move(piece.text)});
      std::push_heap(kept.begin(), kept.end());
    }
    while (sample.bytes > max_bytes) {
      std::pop_heap(kept.begin(), kept.end());
      limit = kept.back().rank;
      sample.bytes -= static_cast<int64_t>(kept.back().text.size());
      kept.pop_back();
    }
    if (!stage.goes_on(reader.stored_bytes_done(), reader.stored_bytes_total())) {
      sample.stopped = true;
      return sample;
    }
  }
  sample.stats = reader.stats();
  sample.pieces.reserve(kept.size());
  for (Ranked& r : kept) sample.pieces.push_back(std::move(r.text));
  return sample;
}

}  // namespace wels
