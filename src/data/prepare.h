// prepare(): corpus → two token shards, one to train on and one to validate with, in bounded
// memory. The corpus is read three times: once to see whether the shards of an earlier call are
// still right (a hash of the corpus' content, the tokenizer and the options), once to count it,
// plan the split and find damaged files within seconds, once to encode it on all threads. Shards
// appear whole or not at all.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/corpus.h"
#include "data/shards.h"
#include "data/watch.h"

namespace wels {

class Tokenizer;

// What prepare() needs of a tokenizer.
struct TextEncoder {
  // Appends the ids of ordinary text: nothing in it means a special token. Thread-safe.
  std::function<void(std::string_view text, std::vector<int32_t>& ids)> encode;
  int64_t vocab = 0;
  uint64_t hash = 0;         // changes when ids change
  int32_t end_of_text = -1;  // put after each document, -1: nothing
  int32_t fim_begin = -1, fim_hole = -1, fim_end = -1;
};

// The tokenizer's encoder; documents end with its end-of-sentence token, as in DeepSeek-V3.
// `tokenizer` is copied (cheap).
TextEncoder text_encoder(const Tokenizer& tokenizer);

// How documents are divided: by a hash of each one (about `share` of them validate; at least one,
// or a part of the longest where none is small enough), or the last `share` of the characters of
// the whole corpus (nanoGPT's way; what kAuto takes for fewer than 50 documents). Without a share:
// 0.01 by hash, 0.1 of the tail.
struct SplitRule {
  enum class Kind { kAuto, kHash, kTail } kind = Kind::kAuto;
  std::optional<double> share = {};
};

struct PrepareOptions {
  SplitRule split;
  // Fill-in-the-middle, V3 §4.1: this share of the training documents is written prefix, suffix,
  // middle, cut at two random characters: <|fim_begin|> pre <|fim_hole|> suf <|fim_end|> mid <end>.
  // In [0, 0.9]; documents in several pieces stay.
  double fim_rate = 0;
  uint64_t seed = 0;  // of the cuts
  // Not 0: throws Error unless corpus, tokenizer and options have this source hash (a run that goes
  // on must read what it began with).
  uint64_t expected_source = 0;
  Watch watch;
};

struct Prepared {
  std::string train, validation;         // paths of the shards
  bool reused = false, stopped = false;  // stopped: by watch; the shards are as they were before
  CorpusStats stats;                     // empty if reused
  int64_t fim_documents = 0;             // rearranged; 0 if reused
};

// Writes <folder>/train.tokens and <folder>/validation.tokens (the folder is made). files: from
// list_corpus. Throws Error for an empty or too small corpus, damaged files, a full or read-only
// disk; old shards are untouched then.
Prepared prepare(const std::vector<std::string>& files, const TextEncoder& encoder,
                 const std::string& folder, const PrepareOptions& options = {});

}  // namespace wels
