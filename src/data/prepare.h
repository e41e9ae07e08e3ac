// prepare(): corpus → two token shards, one to train on and one to validate with, in bounded
// memory. The corpus is read twice: once to count it, plan the split and find damaged files within
// seconds, once to encode it on all threads. Shards appear whole or not at all, and carry a hash of
// the corpus' content, the tokenizer and the options: a second call with the same finds them.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "data/corpus.h"
#include "data/shards.h"

namespace wels {

class Tokenizer;

// What prepare() needs of a tokenizer.
struct TextEncoder {
  Encoder encode;  // of ordinary text: nothing in it means a special token
  int64_t vocab = 0;
  uint64_t hash = 0;         // changes when ids change
  int32_t end_of_text = -1;  // put after each document, -1: nothing
  int32_t fim_begin = -1, fim_hole = -1, fim_end = -1;
};

// The tokenizer's encoder; documents end with its end-of-sentence token, as in DeepSeek-V3.
// `tokenizer` is copied (cheap).
TextEncoder text_encoder(const Tokenizer& tokenizer);

struct PrepareProgress {
  bool encoding = false;       // false: counting
  double done = 0, total = 0;  // MB of text (counting: of stored files)
  double mb_per_s = 0, eta_s = 0;
};

struct PrepareOptions {
  SplitRule split;
  // Fill-in-the-middle, V3 §4.1: this share of the training documents is written prefix, suffix,
  // middle, cut at two random characters: <|fim_begin|> pre <|fim_hole|> suf <|fim_end|> mid <end>.
  // In [0, 0.9]; documents in several pieces stay.
  double fim_rate = 0;
  uint64_t seed = 0;  // of the cuts
  std::function<void(const PrepareProgress&)>
      progress;  // at most ten times a second, from the caller's thread
};

struct Prepared {
  std::string train, validation;  // paths of the shards
  bool reused = false;
  CorpusStats stats;  // empty if reused
};

// Writes <folder>/train.tokens and <folder>/validation.tokens (the folder is made). files: from
// list_corpus. Throws Error for an empty or too small corpus, damaged files, a full or read-only
// disk; old shards are untouched then.
Prepared prepare(const std::vector<std::string>& files, const TextEncoder& encoder,
                 const std::string& folder, const PrepareOptions& options = {});

}  // namespace wels
