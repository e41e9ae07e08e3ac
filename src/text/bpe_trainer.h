// Learning a byte-level BPE vocabulary (Sennrich et al. 2016, on bytes): count the pieces of the
// corpus, then join, again and again, the neighbouring pair of symbols that occurs most often.
//
// Exact and the same for any number of threads: pieces are counted in parallel (sums of whole
// numbers); among pairs of equal count the one with the smaller ids wins. Each join touches only
// the words that hold the pair: every pair keeps the list of its words, counts are updated by the
// differences, and a heap with stale entries gives the next pair.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/vocab_source.h"

namespace wels {

struct BpeTrainerOptions {
  int32_t vocab_size = 16384;  // everything counted: bytes, merges, special tokens
  std::vector<PreTokenizerStep> steps = deepseek_v3_steps();
  std::vector<AddedToken> first;  // get the ids 0, 1, ... (ids in here are ignored)
  std::vector<AddedToken> last;   // get the highest ids
  int64_t min_count = 2;          // pairs that occur less often are not joined
  size_t max_token_bytes = 128;   // as in DeepSeek-V3's vocabulary
};

// DeepSeek's special tokens, in the roles they have in V3 and R1: first <｜begin▁of▁sentence｜>,
// <｜end▁of▁sentence｜>, <｜▁pad▁｜>; last <think>, </think>, fill-in-the-middle, <｜User｜>,
// <｜Assistant｜> and the tool tokens.
BpeTrainerOptions deepseek_style_options(int32_t vocab_size);

// Gives the next document, or false at the end. The view must stay valid until the next call.
using NextDocument = std::function<bool(std::string_view& document)>;

// Trains on all threads. Ids: first, the 256 bytes, merges in order of rank, last. Fewer tokens
// than asked for result if the corpus has no more pairs that occur min_count times. Documents of
// more than 1 MiB are cut at line ends; pieces of more than 1 KiB are cut too. Throws Error if
// vocab_size is too small for bytes and special tokens, or the corpus is empty.
VocabSource train_bpe(const NextDocument& next, const BpeTrainerOptions& options);
VocabSource train_bpe(std::span<const std::string_view> documents,
                      const BpeTrainerOptions& options);

// The other extreme: one token per character of the text, in order of code points, after `first`;
// no merges. Every ill-formed byte is a character. Throws Error if the corpus is empty.
VocabSource train_characters(const NextDocument& next, const std::vector<AddedToken>& first = {});
VocabSource train_characters(std::span<const std::string_view> documents,
                             const std::vector<AddedToken>& first = {});

}  // namespace wels
