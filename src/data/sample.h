// A bounded sample of a corpus, to learn a vocabulary from: merges need counts, and counts of a
// hundred megabytes rank the pairs as well as those of a hundred gigabytes.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "data/corpus.h"
#include "data/watch.h"

namespace wels {

struct TextSample {
  std::vector<std::string> pieces;  // of documents (corpus.h), in no order that means anything
  int64_t bytes = 0;                // their sum
  CorpusStats stats;                // of the whole corpus
  bool stopped = false;             // by watch; pieces are then none
};

// The whole corpus where it has at most max_bytes, else those of its pieces (documents, or parts
// of up to 1 MiB) whose hash is lowest, as many as fit: spread evenly over all files, and the same
// for the same texts in whatever order. Reads everything once; holds max_bytes and one piece.
// files: from list_corpus. Throws what CorpusReader does.
TextSample sample_corpus(const std::vector<std::string>& files, int64_t max_bytes,
                         const Watch& watch = {});

}  // namespace wels
